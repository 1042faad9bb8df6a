"""``pause`` and ``resume``: hold back the start of jobs. What runs goes on."""

from __future__ import annotations

from typing import Annotated

import typer

from loopscope.context import CommandError, Globals, find_one, now, split_name
from loopscope.specs.actions import CODE_REVISIONS
from loopscope.state.db import pauses

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KIND NAME]", help="The object; of an experiment, all its stages."),
]
StageOption = Annotated[
    str | None, typer.Option("--stage", help="All jobs of a stage, in every namespace.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Everything.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("pause")(pause)
    app.command("resume")(resume)


def pause(
    context: typer.Context, words: Words = None, stage: StageOption = None, all_: AllOption = False
) -> None:
    """Start no job of an object, a stage or at all, until resume. What runs goes on."""
    found = _scope(context.obj, words or [], stage, all_, must_exist=True)
    with context.obj.open_existing().database.write() as connection:
        new = pauses.pause(connection, found, now=now())
    print(f"{pauses.in_words(found)} {'paused' if new else 'was paused before'}")


def resume(
    context: typer.Context, words: Words = None, stage: StageOption = None, all_: AllOption = False
) -> None:
    """End a pause; with --all every pause."""
    found = _scope(context.obj, words or [], stage, all_, must_exist=False)
    with context.obj.open_existing().database.write() as connection:
        ended = pauses.resume(connection, None if all_ else found)
        left = pauses.listed(connection)
    for scope in ended:
        print(f"{pauses.in_words(scope)} resumed")
    if not ended:
        others = f"; paused are {', '.join(map(pauses.in_words, left))}" if left else "; nothing is"
        raise CommandError(f"{pauses.in_words(found)} is not paused{others}", 1)


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
