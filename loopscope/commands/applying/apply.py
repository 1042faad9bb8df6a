"""``apply`` and ``diff``: what should exist."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopscope.commands.options import (
    AllowEmptyOption,
    ApplySetOption,
    ConfirmOption,
    DryRunOption,
    FilesOption,
    FilesOrElseOption,
    ForceOption,
    PruneOption,
    RootOption,
)
from loopscope.context import CommandError, Globals, now, root_of
from loopscope.specs.yaml.spec_sources import SpecSource
from loopscope.state.folder import StateFolder, has_database
from loopscope.terminal.printable import printable

if TYPE_CHECKING:
    from loopscope.controller.apply.intents import Intent
    from loopscope.controller.plan.requests import Done, Reading, Request

EXAMPLES = {
    "apply": (
        "apply -f specs/france.yaml",
        "apply -f specs --apply-set team --prune",
        "apply -f - < france.yaml",
    ),
    "diff": ("diff -f specs/france.yaml",),
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("apply")(apply)
    app.command("diff")(diff)


def apply(
    context: typer.Context,
    filename: FilesOrElseOption = None,
    root: RootOption = None,
    dry_run: DryRunOption = "none",
    apply_set: ApplySetOption = None,
    prune: PruneOption = False,
    allow_empty: AllowEmptyOption = False,
    force_conflicts: ForceOption = False,
    confirm: ConfirmOption = False,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="Apply this plan, if nothing moved since.")
    ] = None,
) -> None:
    """Store what a file or folder describes; a controller then makes it true."""
    from loopscope.controller.plan.requests import fulfil, read_files  # late: help must stay quick

    if (plan is None) == (not filename):
        raise CommandError("name what to apply: either -f PATH or --plan FILE")
    if plan is not None:
        others = root, apply_set, prune, allow_empty, force_conflicts, context.obj.namespace_given
        if any(others) or dry_run != "none":
            raise CommandError("--plan holds all other options; only --confirm goes with it")
        _print_done(_apply_plan(context.obj, plan, confirm=confirm))
        return
    request = request_of(
        context.obj, filename or [], root, apply_set, prune, allow_empty, force_conflicts, confirm
    )
    if dry_run != "none":
        _dry_run(existing(context.obj, to_read=True), request)
        return
    state = existing(context.obj)
    reading = read_files(state, request, now=now())
    _print_done(fulfil(state or context.obj.open(), reading, now=now()))
    print_notes(state, reading)


def diff(
    context: typer.Context,
    filename: FilesOption,
    root: RootOption = None,
    apply_set: ApplySetOption = None,
    force_conflicts: ForceOption = False,
) -> None:
    """Show which fields an apply would change. Exit 1 when there are any."""
    from loopscope.controller.apply.intents import intents
    from loopscope.controller.plan.reasons import change_words
    from loopscope.controller.plan.requests import read_files

    state = context.obj.open_to_read()
    request = request_of(context.obj, filename, root, apply_set, force=force_conflicts)
    reading = read_files(state, request, now=now())
    with state.database.read() as connection:
        found = intents(connection, reading.loaded, request.applier)
    different = [intent for intent in found if intent.changes]
    for intent in different:
        print(f"{intent.key}{'' if intent.stored else ' (new)'}")
        for change in intent.changes:
            print(printable(f"  {change_words(change.field, change.before, change.after)}"))
    raise typer.Exit(1 if different else 0)


def request_of(
    options: Globals,
    paths: Sequence[Path],
    root: Path | None,
    apply_set: str | None = None,
    prune: bool = False,
    allow_empty: bool = False,
    force: bool = False,
    confirm: bool = False,
) -> Request:
    """Return what the options of ``apply`` and ``plan`` ask for."""
    from loopscope.controller.apply.appliers import ANYBODY, Applier, set_manager
    from loopscope.controller.plan.requests import Request

    if apply_set is not None and not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", apply_set):
        raise CommandError(
            f"--apply-set {apply_set!r}: expected lower-case letters, digits and '-', at most 63"
        )
    applier = Applier(set_manager(apply_set) if apply_set else ANYBODY, force)
    return Request(
        tuple(SpecSource(path, root_of(path, root)) for path in paths),
        applier,
        options.only_namespace,
        prune=prune,
        allow_empty=allow_empty,
        confirm=confirm,
    )


def existing(options: Globals, *, to_read: bool = False) -> StateFolder | None:
    """Return the state folder if there is one; ``to_read``: also where nothing may be written."""
    if not has_database(options.state_path):
        return None
    return options.open_to_read() if to_read else options.open_existing()


def print_notes(state: StateFolder | None, reading: Reading) -> list[str]:
    """Print to standard error what was not looked at, and what may find nothing; return it."""
    if not reading.loaded:
        return []
    from loopscope.controller.plan.selection_power import selection_warnings
    from loopscope.controller.plan.unchecked import unchecked_inputs

    notes = [
        *(f"note: {note}" for note in unchecked_inputs(state, reading.loaded)),
        *(f"warning: {note}" for note in selection_warnings(state, reading.loaded)),
    ]
    for note in notes:
        print(printable(note), file=sys.stderr)
    return notes


def _dry_run(state: StateFolder | None, request: Request) -> None:
    """Say what an apply would do, or refuse what it would refuse; store nothing."""
    from loopscope.controller.apply.intents import intents
    from loopscope.controller.plan.requests import doomed_by, read_files, refuse_costly

    reading: Reading = read_files(state, request, now=now())
    if state is None:
        lines = [f"{item.manifest.key} created (dry run)" for item in reading.loaded]
    else:
        with state.database.read() as connection:
            wanted = intents(connection, reading.loaded, request.applier)
            lines = dry_lines(wanted)
            lines += [f"{key} unchanged (dry run)" for key in reading.unchanged.objects]
            lines += [f"{key} pruned (dry run)" for key in doomed_by(connection, reading)]
        refuse_costly(state, reading, now=now())
    print("\n".join(lines))
    print_notes(state, reading)


def _apply_plan(options: Globals, file: Path, *, confirm: bool) -> Done:
    from loopscope.controller.plan.plan_files import (
        plan_document,
        read_plan,
        refuse_if_moved,
        request_of,
    )
    from loopscope.controller.plan.requests import fulfil, planned, read_files

    document = read_plan(file)
    request = request_of(document, confirm=confirm)
    state = existing(options)
    if state is None:
        state = options.open()
    reading = read_files(state, request, now=now())
    with state.database.read() as connection:
        found = planned(connection, state, reading, now=now())
    refuse_if_moved(document, plan_document(found, reading, now=now()))
    return fulfil(state, reading, now=now(), expected=document["editions"])


def _print_done(done: Done) -> None:
    print(printable("\n".join(done_lines(done))))


def dry_lines(wanted: Sequence[Intent]) -> list[str]:
    """Return a line for each object that would be stored."""
    return [f"{intent.key} {intent.outcome} (dry run)" for intent in wanted]


def done_lines(done: Done) -> list[str]:
    """Return a line for each object of the files, and for each that something else came of."""
    return [
        *(f"{applied.key} {applied.outcome}" for applied in done.applied),
        *(f"{one.key} is made again: {one.words}" for one in done.again),
        *(f"{key} pruned" for key in done.removed),
    ]
