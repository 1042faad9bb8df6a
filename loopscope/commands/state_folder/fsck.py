"""``fsck``: compare the database with the disk, and repair what can be repaired."""

from __future__ import annotations

import json
from typing import Annotated, TypedDict

import typer

from loopscope.context import CommandError, now
from loopscope.state.artifacts.consistency import ADVICE, Comparison, Finding
from loopscope.views.numbers import counted

EXIT_FINDINGS = 1
_SET_ASIDE = "damaged or foreign things were"

EXAMPLES = {
    "fsck": ("fsck", "fsck --repair"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fsck")(fsck)


def fsck(
    context: typer.Context,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended; no controller may run.")
    ] = False,
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
) -> None:
    """Compare the database with the artifacts, byte by byte. Exit 1 when something is left.

    Changes nothing without --repair.
    """
    # late: help must stay quick
    from loopscope.controller.maintenance.fsck import examine, repair_findings
    from loopscope.controller.runtime import AnotherController

    context.obj.refuse_namespace("fsck")
    path = context.obj.state_path
    if not path.is_dir():
        raise CommandError(f"no state folder at {path}; name one with --state")
    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    repaired: list[Finding] = []
    try:
        if repair:
            done = repair_findings(path, now())
            repaired, seen = done.repaired, done.after
        else:
            seen = examine(path)
    except AnotherController as error:
        raise CommandError(f"{error}; stop it before a repair", 1) from None
    if output == "json":
        print(json.dumps(_document(repaired, seen), indent=2))
    else:
        _print(repaired, seen)
    raise typer.Exit(EXIT_FINDINGS if seen.findings else 0)


def _print(repaired: list[Finding], seen: Comparison) -> None:
    for finding in repaired:
        print(f"repaired {finding.problem} {finding.subject}: {finding.what}")
    for finding in seen.findings:
        advice = ADVICE[finding.problem]
        print(f"{finding.problem} {finding.subject}: {finding.what}; {advice}")
    size = sum(record.bytes for record in seen.whole)
    whole = counted(len(seen.whole), "artifact is", "artifacts are")
    print(f"{whole} whole ({size:,} bytes)")
    if seen.quarantined:
        print(
            f"{counted(seen.quarantined, 'damaged or foreign thing was', _SET_ASIDE)} set aside "
            f"({seen.quarantined_bytes:,} bytes); nothing needs them any more"
        )
    if seen.trashed:
        trashed = counted(seen.trashed, "thing lies", "things lie")
        print(f"{trashed} in the trash ({seen.trashed_bytes:,} bytes)")
    repairable = sum(finding.repair is not None for finding in seen.findings)
    hint = f", {repairable} can be repaired: loopscope fsck --repair" if repairable else ""
    found = counted(len(seen.findings), "finding")
    print(f"{found}{hint}" if seen.findings else "no findings")


class _Finding(TypedDict):
    problem: str
    subject: str
    what: str
    advice: str
    bytes: int
    repairable: bool


class _Document(TypedDict):
    """What ``fsck -o json`` prints."""

    findings: list[_Finding]
    repaired: list[_Finding]
    artifacts: int
    artifactBytes: int
    quarantined: int
    quarantinedBytes: int
    trashed: int
    trashedBytes: int


def _document(repaired: list[Finding], seen: Comparison) -> _Document:
    return {
        "findings": [_finding(finding) for finding in seen.findings],
        "repaired": [_finding(finding) for finding in repaired],
        "artifacts": len(seen.whole),
        "artifactBytes": sum(record.bytes for record in seen.whole),
        "quarantined": seen.quarantined,
        "quarantinedBytes": seen.quarantined_bytes,
        "trashed": seen.trashed,
        "trashedBytes": seen.trashed_bytes,
    }


def _finding(finding: Finding) -> _Finding:
    return {
        "problem": finding.problem,
        "subject": finding.subject,
        "what": finding.what,
        "advice": ADVICE[finding.problem],
        "bytes": finding.bytes,
        "repairable": finding.repair is not None,
    }
