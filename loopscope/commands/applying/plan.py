"""``plan``: what an apply would run, without applying or running anything."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopscope.commands.applying.apply import existing, print_notes, request_of
from loopscope.commands.options import (
    AllowEmptyOption,
    ApplySetOption,
    FilesOption,
    ForceOption,
    PruneOption,
    RootOption,
)
from loopscope.context import CommandError, Globals, forecaster_of_this_machine, now
from loopscope.specs.keys import Key
from loopscope.specs.yaml.spec_sources import STANDARD_INPUT
from loopscope.state.destinations import write_whole
from loopscope.state.folder import StateFolder, open_state
from loopscope.terminal.printable import printable

if TYPE_CHECKING:
    from loopscope.controller.apply.planned import FieldChange, Planned, PlannedStage

EXAMPLES = {
    "plan": ("plan -f specs", "plan -f specs -o plan.json"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan")(plan)


def plan(
    context: typer.Context,
    filename: FilesOption,
    root: RootOption = None,
    apply_set: ApplySetOption = None,
    prune: PruneOption = False,
    allow_empty: AllowEmptyOption = False,
    force_conflicts: ForceOption = False,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="json, or a file for `apply --plan`."),
    ] = None,
) -> None:
    """Show what an apply would run, and why; nothing is written."""
    from loopscope.controller.plan.requests import planned, read_files

    if STANDARD_INPUT in filename and output not in (None, "json"):
        raise CommandError("a plan file names files that are read again; -f - is none")
    request = request_of(
        context.obj, filename, root, apply_set, prune, allow_empty, force_conflicts
    )
    with _opened(context.obj) as state:
        reading = read_files(state, request, now=now())
        with state.database.read() as connection:
            found = planned(
                connection, state, reading, now=now(), forecaster=forecaster_of_this_machine
            )
        notes = print_notes(state, reading)
    if output is None:
        print(printable("\n".join(_lines(found))))
        return
    from loopscope.controller.plan.plan_files import plan_document

    whole = plan_document(found, reading, now=now(), notes=notes)
    document = json.dumps(whole, indent=1, ensure_ascii=False)
    if output == "json":
        print(document)
        return
    write_whole(Path(output), lambda: document + "\n")
    print(f"{_total(found)}\nplan: {output}")


@contextmanager
def _opened(options: Globals) -> Iterator[StateFolder]:
    """Open the state folder; where there is none, an empty one that vanishes again."""
    state = existing(options, to_read=True)
    if state is not None:
        yield state
        return
    with tempfile.TemporaryDirectory() as folder:
        yield open_state(Path(folder) / "state")


def _lines(found: Planned) -> Iterator[str]:
    by_root: dict[Key, list[PlannedStage]] = {}
    for stage in found.stages:
        by_root.setdefault(stage.root, []).append(stage)
    quiet = 0
    for item in found.objects:
        stages = by_root.pop(item.key, [])
        if item.outcome == "unchanged" and all(s.state in ("cached", "no work") for s in stages):
            quiet += 1
            continue
        yield f"{item.key} {item.outcome}"
        yield from _changes(item.changes, item.outcome)
        yield from _table(stages)
    for root, stages in by_root.items():
        yield f"{root} rests on these"
        yield from _table(stages)
    for key in found.prune:
        yield f"{key} pruned"
    if quiet:
        yield f"{quiet} object{'s' if quiet != 1 else ''} unchanged, nothing to run"
    yield _total(found)


def _changes(changes: Sequence[FieldChange], outcome: str) -> Iterator[str]:
    from loopscope.controller.plan.reasons import change_words
    from loopscope.controller.plan.upgrade_words import default_words

    for change in changes if outcome == "configured" else ():
        words = change_words(change.field, change.before, change.after)
        yield f"  {default_words(change) if change.is_default else words}"


def _table(stages: list[PlannedStage]) -> Iterator[str]:
    from loopscope.views.numbers import duration

    names = max((len(str(stage.key)) for stage in stages), default=0)
    for stage in stages:
        words = [*([f"until {stage.until}"] if stage.until else []), *stage.why]
        estimate = _estimate(stage)
        if estimate:
            words.append(estimate)
        if stage.discards_seconds >= 1:
            words.append(f"discards {duration(stage.discards_seconds)} of work")
        yield f"  {stage.key!s:<{names}}  {stage.state:<8} {'; '.join(words)}".rstrip()


def _estimate(stage: PlannedStage) -> str:
    from loopscope.views.numbers import byte_size, duration

    if stage.took is not None and stage.seconds is not None:
        return f"predicted {duration(stage.seconds)}, took {duration(stage.took)} ({stage.basis})"
    if stage.state not in ("to do", "unknown"):
        return ""
    sizes = [f"about {duration(stage.seconds)}"] if stage.seconds is not None else []
    sizes += [byte_size(stage.bytes)] if stage.bytes is not None else []
    sizes += [f"{byte_size(stage.memory)} of memory"] if stage.memory is not None else []
    return f"{', '.join(sizes)} ({stage.basis})" if sizes else stage.basis


def _total(found: Planned) -> str:
    from loopscope.views.numbers import duration

    parts = []
    for state in ("to do", "unknown", "running", "queued", "stalled"):
        stages = found.of(state)
        if stages:
            parts.append(f"{len(stages)} {state}{_sum(stages)}")
    still = len(found.of("cached", "no work"))
    parts.append(f"{still} cached")
    lost = found.discards_seconds
    end = f"; discards {duration(lost)} of finished work" if lost >= 1 else ""
    if found.needs_confirmation:
        end += "; Loopscope's rules or defaults changed, so apply asks for --confirm"
    return f"plan: {', '.join(parts)}{end}"


def _sum(stages: list[PlannedStage]) -> str:
    from loopscope.views.numbers import byte_size, duration

    known = [stage for stage in stages if stage.seconds is not None]
    if not known:
        return " (no past run)" if stages[0].state in ("to do", "unknown") else ""
    seconds = sum(stage.seconds or 0.0 for stage in known)
    size = sum(stage.bytes or 0 for stage in known)
    most = "up to " if stages[0].state == "unknown" else ""
    rest = len(stages) - len(known)
    blank = f", {rest} without a past run" if rest else ""
    return f" ({most}about {duration(seconds)}, {byte_size(size)}{blank})"
