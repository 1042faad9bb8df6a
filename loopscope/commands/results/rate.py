"""``rate``: what people said of generated texts, taken in from the file that a report saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopscope.commands.command_line import Application, Group
from loopscope.context import CommandError
from loopscope.reports.text_table import TextTable
from loopscope.specs.files import read_at_most
from loopscope.state.db import objects
from loopscope.state.folder import StateFolder
from loopscope.terminal.columns import show
from loopscope.terminal.printable import printable

if TYPE_CHECKING:
    from loopscope.specs.ratings import RatingSet
    from loopscope.views.experiment import ExperimentView

FILE_BYTES_MAX = 8 * 1024 * 1024

EXAMPLES = {
    "rate": ("rate import france-ratings.json",),
}


def register(app: typer.Typer) -> None:
    """Add the group with its commands."""
    group = Application(cls=Group, no_args_is_help=True, help="Ratings of generated texts.")
    group.callback()(_group)
    group.command("import")(import_)
    app.add_typer(group, name="rate")


def _group() -> None:
    """Keep ``import`` a word of its own where it is the only one."""


def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="What a report saved after rating: JSON or CSV.")],
) -> None:
    """Store ratings beside the run that they belong to, and print how far they agree.

    A file of another run is refused: it names the steering whose texts were rated.
    """
    from loopscope.state.ratings import store
    from loopscope.views.ratings import HEAD, ratings_of, unknown_text

    ratings = _read(file)
    state = context.obj.open_existing()
    view = _run_of(state, context.obj.namespace, ratings, file)
    steering = view.stage("steering")
    unknown = unknown_text(ratings, steering)
    if unknown is not None:
        raise CommandError(
            f"{file}: {view.name} has no text {' '.join(map(str, unknown))}; nothing was stored"
        )
    try:
        is_new = store(state.ratings, ratings)
    except ValueError as refused:
        raise CommandError(str(refused)) from None
    many = f"{len(ratings.ratings)} ratings by {ratings.rater} of experiment/{view.name}"
    print(printable(f"{many} {'stored' if is_new else 'were there already'}"))
    rated = view.rated if not is_new else [*view.rated, ratings]
    show(TextTable([word.upper() for word in HEAD], list(ratings_of(rated, steering).rows())))


def _read(file: Path) -> RatingSet:
    from loopscope.specs.ratings import read_ratings

    try:
        return read_ratings(read_at_most(file, FILE_BYTES_MAX).decode("utf-8-sig"))
    except ValueError as error:  # UnicodeDecodeError among them
        raise CommandError(f"{file}: {error}; nothing was stored") from None


def _run_of(state: StateFolder, namespace: str, ratings: RatingSet, file: Path) -> ExperimentView:
    """Return the experiment whose present steering was rated. Raises CommandError."""
    from loopscope.views.experiment import ExperimentView

    with state.database.read() as connection:
        found = objects.listed(connection, "Steering", namespace)
    for record in found:
        made = record.status.artifact
        is_rated = made is not None and made.content_digest == ratings.steering
        if is_rated and record.owner is not None:
            return ExperimentView.load(state, record.owner)
    own = next((one for one in found if one.key.name == f"{ratings.experiment}-steering"), None)
    made = own.status.artifact if own is not None else None
    there = (
        f"experiment/{ratings.experiment} rests on {made.content_digest[:12]} now"
        if made is not None
        else f"there is no steering of experiment/{ratings.experiment} here"
    )
    raise CommandError(
        f"{file}: these are texts of the steering {ratings.steering[:12]} of "
        f"{ratings.experiment!r}, and {there}; rate the report of the run that is here, or import "
        "the file where that run is; nothing was stored"
    )
