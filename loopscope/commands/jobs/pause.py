"""``pause`` and ``resume``: hold back the start of jobs. What runs goes on."""

from __future__ import annotations

from typing import Annotated

import typer

from loopscope.commands.object_words import complete_object
from loopscope.context import CommandError, Globals, find_one, now, split_name
from loopscope.specs.actions import CODE_REVISIONS
from loopscope.state.db import pauses
from loopscope.state.failures import TerminalFailure

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KIND NAME]",
        help="The object; of an experiment, all its stages.",
        autocompletion=complete_object,
    ),
]
StageOption = Annotated[
    str | None, typer.Option("--stage", help="All jobs of a stage, in every namespace.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Everything.")]

EXAMPLES = {
    "pause": ("pause experiment france", "pause --stage steering", "pause --all"),
    "resume": ("resume experiment france", "resume --all"),
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("pause")(pause)
    app.command("resume")(resume)


def pause(
    context: typer.Context, words: Words = None, stage: StageOption = None, all_: AllOption = False
) -> None:
    """Start no job of an object, a stage or at all, until resume. What runs goes on."""
    found = _scope(context.obj, words or [], stage, all_, must_exist=True)
    from loopscope.controller.maintenance import by_hand  # late: help must stay quick

    with context.obj.open_existing().database.write() as connection:
        lines = by_hand.pause(connection, found, now=now())
    print("\n".join(lines))


def resume(
    context: typer.Context, words: Words = None, stage: StageOption = None, all_: AllOption = False
) -> None:
    """End a pause; with --all every pause."""
    found = _scope(context.obj, words or [], stage, all_, must_exist=False)
    from loopscope.controller.maintenance import by_hand  # late: help must stay quick

    try:
        with context.obj.open_existing().database.write() as connection:
            lines = by_hand.resume(connection, None if all_ else found)
    except TerminalFailure as failure:
        raise CommandError(failure.message, 1) from None
    print("\n".join(lines))


def _scope(
    given: Globals, words: list[str], stage: str | None, all_: bool, *, must_exist: bool
) -> str:
    """Return the scope that exactly one of KIND NAME, --stage and --all names."""
    if bool(words) + (stage is not None) + all_ != 1:
        raise CommandError("expected one of KIND NAME, --stage STAGE or --all")
    if not words:
        given.refuse_namespace("--all" if all_ else "--stage")
    if all_:
        return pauses.EVERYTHING
    if stage is not None:
        if stage not in CODE_REVISIONS:
            raise CommandError(
                f"unknown stage {stage!r}; expected one of {', '.join(CODE_REVISIONS)}"
            )
        return pauses.scope_of_stage(stage)
    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"expected a name: loopscope pause {kind.lower()} NAME")
    with given.open_to_read().database.read() as connection:
        try:
            return pauses.scope_of(find_one(connection, kind, given.namespace, name).key)
        except CommandError:
            if must_exist:
                raise
            return pauses.scope_of_name(kind, given.namespace, name)
