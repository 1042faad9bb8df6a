"""The last words of ``run``: how each object ended, what was kept, how to go on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from loopscope.specs.keys import Key
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.state.artifacts.store import Unreachable
from loopscope.state.db import jobs
from loopscope.state.folder import StateFolder
from loopscope.state.records import UNAVAILABLE, ObjectRecord
from loopscope.terminal.printable import printable
from loopscope.views.numbers import counted, testable
from loopscope.views.present import present
from loopscope.views.settled import family

TIME_OPTIONS = ("--timeout", "--stop-before")


def outcome_line(record: ObjectRecord, option: str = "") -> str:
    """Return how an object ended; ``option`` is what a follow-up command must repeat."""
    stalled = record.status.condition("Stalled")
    if record.stalled and stalled is not None:
        line = f"{record.key} is stalled: {stalled.reason}: {stalled.message}"
        kind, name = record.key.kind.lower(), record.key.name
        hint = f"\n  when that is repaired: loopscope{option} retry {kind} {name}, then run again"
        return line + (hint if record.wanted_digest else "")
    if not record.ready:
        ready = record.status.condition("Ready")
        return f"{record.key} is not done: {f'{ready.reason}: {ready.message}' if ready else '-'}"
    older = " by rules of an older Loopscope" if record.status.is_of_older_rules else ""
    return f"{record.key} is ready{older}{_answers(record.status.summary)}"


def outcomes(records: Sequence[ObjectRecord], keys: Sequence[Key], option: str = "") -> list[str]:
    """Return a line for each applied object, and for each that itself needs a human."""
    reported = [r for r in records if r.key in keys or _is_root_cause(r)]
    return [printable(outcome_line(record, option)) for record in reported]


def kept_line(state: StateFolder, keys: Sequence[Key], *, what: str) -> str:
    """Return the last line of a run that did not settle: ``what`` happened, and what is kept."""
    with state.database.read() as connection:
        records = present(connection, family(connection, keys))
        wanted = {record.wanted_digest for record in records}
        active = [job for job in jobs.listed(connection) if job.digest in wanted]
    stages = [record for record in records if record.key.kind not in OWNER_KINDS]
    done = sum(record.ready for record in stages)
    kept = [f"{done} of {len(stages)} stages"] if stages else []
    for job in active:
        shards = 0
        with suppress(Unreachable):  # they are kept all the same
            shards = len(state.artifacts.shards(job.digest).names())
        if shards:
            kept.append(f"{shards} finished shards of {job.object}")
    return printable(f"{what}; kept: {', '.join(kept) or 'what was applied'}. {how_to_go_on()}")


def command_option(state: StateFolder) -> str:
    """Return the option that a follow-up command must repeat, or an empty text."""
    usual = state.path == Path(".loopscope").resolve()
    return "" if usual else f" --state {state.path}"


def how_to_go_on() -> str:
    """Return the command that goes on where this one ended, for as long as it takes."""
    words = iter(sys.argv[1:])
    kept = []
    for word in words:
        if word in TIME_OPTIONS:
            next(words, None)
        elif word.partition("=")[0] not in TIME_OPTIONS:
            kept.append(word)
    return f"Go on with: {shlex.join(['loopscope', *kept])}"


def _is_root_cause(record: ObjectRecord) -> bool:
    """Whether the object itself needs a human, or a hub, and not something before it."""
    stalled, ready = record.status.condition("Stalled"), record.status.condition("Ready")
    if record.stalled and stalled is not None:
        return stalled.reason != "UpstreamStalled"
    return ready is not None and ready.reason == UNAVAILABLE


def _why_not_testable(summary: Mapping[str, Any]) -> str:
    testless = summary["verdict"] == "NotTestable" and summary.get("reason")
    return f" ({summary['reason']})" if testless else ""


def _steered(summary: Mapping[str, Any]) -> str:
    """Return the anchor that gate and steering speak of, with its count and its rank."""
    if summary.get("anchor") is None:
        return ""
    rank = summary.get("anchor_rank")
    placed = f", rank {rank:.0f} of 100" if isinstance(rank, float) else ""
    children = counted(summary.get("anchor_children", 0), "child", "children")
    return f" (coarse latent {summary['anchor']}: {children}{placed})"


def _answers(summary: Mapping[str, Any]) -> str:
    words = [f"gate {summary['gate']}{_steered(summary)}"] if summary.get("gate") else []
    if summary.get("verdict"):
        words.append(f"verdict {summary['verdict']}{_why_not_testable(summary)}")
    if isinstance(testable(summary).get("estimate"), float):
        words.append(
            f"{summary.get('contrast')} {summary['estimate']:+.2f} "
            f"[{summary['low']:+.2f}, {summary['high']:+.2f}], n = {summary['n']}"
        )
    return f": {', '.join(words)}" if words else ""
