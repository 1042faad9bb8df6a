"""``verify``: a bundle held against what it says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopscope.context import EXIT_DIFFERS, CommandError
from loopscope.terminal.printable import printable

if TYPE_CHECKING:
    from loopscope.reports.verification.verify import Verification

DIFFERENCES_SHOWN = 20
EXAMPLES = {"verify": ("verify bundle/france", "verify bundle/france -o json")}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify")(verify)


def verify(
    bundle: Annotated[Path, typer.Argument(help="A folder that export wrote.")],
    identifier: Annotated[
        str | None,
        typer.Option("--digest", help="The digest by which the bundle was cited; else any."),
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
) -> None:
    """Compute a bundle's headline numbers again from its tables, and compare every byte's hash.

    Needs no network, no model and no torch. What cannot be computed again without the model is
    listed as not re-computed. Ends with 5 when something differs.
    """
    from loopscope.reports.verification.verify import verify as verified

    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    if not bundle.is_dir():
        raise CommandError(f"{bundle} is not a folder")
    found = verified(bundle)
    cited = None if identifier is None else identifier.removeprefix("sha256:") == found.identifier
    if output == "json":
        print(json.dumps(_document(found, cited=cited), indent=1, ensure_ascii=False))
    else:
        _print(found, cited=cited)
    if not found.holds or cited is False:
        raise typer.Exit(EXIT_DIFFERS)


def _document(found: Verification, *, cited: bool | None) -> dict[str, object]:
    return {
        "digest": found.identifier,
        "digestAsCited": cited,
        "holds": found.holds,
        "compared": found.compared,
        "differences": [
            {"check": d.check, "place": d.place, "recorded": d.recorded, "computed": d.computed}
            for d in found.differences
        ],
        "notRecomputed": found.left_out,
        "ended": found.ended,
        "owner": found.owner,
        "registered": found.answers,
        "afterRegistration": found.deviations,
    }


def _print(found: Verification, *, cited: bool | None) -> None:
    from loopscope.reports.text_table import TextTable
    from loopscope.terminal.columns import show

    wrong = dict.fromkeys(found.compared, 0)
    for one in found.differences:
        wrong[one.check] += 1
    rows = [
        [check, f"{values:,}", f"{wrong[check]:,} differ" if wrong[check] else "same"]
        for check, values in found.compared.items()
    ]
    show(TextTable(["CHECK", "VALUES", "RESULT"], rows))
    print("\nnot re-computed:")
    for what, why in found.left_out.items():
        print(printable(f"  {what}: {why}"))
    for title, lines in (
        ("owner", [found.owner] if found.owner else []),
        ("looks", [found.ended] if found.ended else []),
        ("registered", found.answers),
        ("otherwise than registered", found.deviations),
    ):
        if lines:
            print(printable("\n".join([f"\n{title}:", *(f"  {line}" for line in lines)])))
    if found.differences:
        print("\ndifferent:")
    for one in found.differences[:DIFFERENCES_SHOWN]:
        values = f"recorded {one.recorded}, computed {one.computed}"
        print(printable(f"  {one.check}: {one.place}: {values}"))
    if len(found.differences) > DIFFERENCES_SHOWN:
        print(f"  and {len(found.differences) - DIFFERENCES_SHOWN:,} more (-o json)")
    other = ", which is not the cited one" if cited is False else ""
    print(f"\nbundle sha256:{found.identifier}{other}")
    total = sum(found.compared.values())
    if found.holds:
        print(f"{total:,} values are as the bundle makes them; the others are named above")
    else:
        print(f"{len(found.differences):,} of {total:,} values differ")
