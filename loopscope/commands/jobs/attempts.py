"""``retry``, ``cancel`` and ``rerun``: what happens to the work of an object."""

from __future__ import annotations

from typing import Annotated

import typer

from loopscope.commands.object_words import complete_experiment, complete_object
from loopscope.context import CommandError, experiment_names, find, find_one, now, split_name
from loopscope.specs.pipeline import NODE_NAMES
from loopscope.state.db.connection import Connection
from loopscope.state.records import ObjectRecord

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="KIND NAME",
        help="Whose jobs; of an experiment, all stages.",
        autocompletion=complete_object,
    ),
]

EXAMPLES = {
    "retry": ("retry experiment france",),
    "cancel": ("cancel steering france",),
    "rerun": ("rerun experiment/france --from mapping",),
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("retry")(retry)
    app.command("cancel")(cancel)
    app.command("rerun")(rerun)


def retry(context: typer.Context, words: Words) -> None:
    """Queue the failed or cancelled job of an object again."""
    from loopscope.controller.maintenance import by_hand  # late: help must stay quick

    with context.obj.open_existing().database.write() as connection:
        found = by_hand.with_work(connection, _named(connection, context, words, "retry"))
        lines = by_hand.retry(connection, found, now=now())
    _print_lines(lines)


def cancel(context: typer.Context, words: Words) -> None:
    """Cancel the jobs of an object that run or wait; they start again only by retry or an edit."""
    from loopscope.controller.maintenance import by_hand  # late: help must stay quick

    with context.obj.open_existing().database.write() as connection:
        found = by_hand.with_work(connection, _named(connection, context, words, "cancel"))
        lines = by_hand.cancel(connection, found, now=now())
    _print_lines(lines)


def rerun(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="An experiment.", autocompletion=complete_experiment),
    ],
    start: Annotated[
        str,
        typer.Option("--from", help=f"This stage and later ones: {', '.join(NODE_NAMES)}."),
    ] = NODE_NAMES[0],
) -> None:
    """Make the artifacts of an experiment's stages again; the old ones are set aside."""
    from loopscope.controller.maintenance import by_hand  # late: help must stay quick

    if start not in NODE_NAMES:
        raise CommandError(f"unknown stage {start!r}; expected one of {', '.join(NODE_NAMES)}")
    names = experiment_names(words, "rerun")
    if len(names) > 1:
        raise CommandError(f"rerun takes one experiment; found {' '.join(names)!r}")
    state = context.obj.open_existing()
    with state.database.write() as connection:
        record = find_one(connection, "Experiment", context.obj.namespace, names[0])
        lines = by_hand.rerun(connection, state.artifacts, record, start, now=now())
    _print_lines(lines)


def _print_lines(lines: list[str]) -> None:
    """Print what was done. After the transaction: the reader of the output may be slow, or gone."""
    for line in lines:
        print(line)


def _named(
    connection: Connection, context: typer.Context, words: list[str], command: str
) -> list[ObjectRecord]:
    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"{command} needs a name: loopscope {command} {kind.lower()} NAME")
    return find(connection, kind, context.obj.namespace, name)
