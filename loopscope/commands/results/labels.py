"""``labels``: what Neuronpedia says of an experiment's latents."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, cast

import typer

from loopscope.commands.object_words import complete_experiment
from loopscope.context import CommandError, experiment_names, find_experiment, now
from loopscope.reports.text_table import TextTable
from loopscope.specs.payloads.steering import SIDES
from loopscope.terminal.columns import show
from loopscope.views.numbers import MISSING

if TYPE_CHECKING:
    from loopscope.specs.spec_json import DictionaryJson
    from loopscope.views.experiment import ExperimentView
    from loopscope.views.labels import Described

EXAMPLES = {
    "labels": ("labels france", "labels france --fetch"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("labels")(labels)


def labels(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="An experiment.", autocompletion=complete_experiment),
    ],
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Ask the site; without it no network is asked.")
    ] = False,
    site: Annotated[
        str | None, typer.Option("--site", help="The site to ask: https://www.neuronpedia.org.")
    ] = None,
) -> None:
    """Show the labels of the latents in an experiment's report; --fetch gets them first.

    They are kept with their date, shown in the report, and choose nothing.
    """
    from loopscope.inputs import labels as inputs  # late: help must stay quick
    from loopscope.inputs.errors import InputRefused, ResolutionPending
    from loopscope.reports.page.sections.latents import shown_on
    from loopscope.views.experiment import ExperimentView

    name, *more = experiment_names(words, "labels")
    if more:
        raise CommandError(f"labels takes one experiment; found {' '.join([name, *more])!r}")
    state = context.obj.open_to_read()
    with state.database.read() as connection:
        key = find_experiment(connection, context.obj.namespace, name).key
    view = ExperimentView.load(state, key)
    shown = [(one.side, one.latent) for one in shown_on(view)]
    if not shown:
        raise CommandError(f"{name} has no latents to show yet; look with loopscope get", 1)
    places = {side: one.place for side, one in described(view).items()}
    if not places:
        raise CommandError(f"SAELens' registry knows no page of {name}'s dictionaries", 1)
    if fetch:
        today = datetime.fromtimestamp(now(), UTC).date().isoformat()
        try:
            for side, place in places.items():
                asked = [latent for of, latent in shown if of == side]
                inputs.fetch(place, asked, today, site=(site or inputs.SITE).rstrip("/"))
        except (InputRefused, ResolutionPending) as error:
            raise CommandError(error.message) from None
    known, rows = described(view), []
    for side, latent in shown:
        if side not in known:
            continue
        label = known[side].labels.get(latent)
        texts = "; ".join(label.texts) if label is not None and label.texts else MISSING
        when = label.fetched_on if label is not None else MISSING
        rows.append([side, str(latent), texts, when, known[side].page(latent)])
    show(TextTable(["SIDE", "LATENT", "LABELS", "FETCHED", "PAGE"], rows))


def described(view: ExperimentView) -> Described:
    """Return where the latents of an experiment have pages, with what was fetched; no network."""
    from loopscope.inputs.labels import known, place_of
    from loopscope.views.labels import Elsewhere, Label

    found = {}
    for side in SIDES:
        place = place_of(cast("DictionaryJson", view.experiment.spec["dictionaries"][side]))
        if place is not None:
            stored = known(place)
            labels = {i: Label(tuple(one["texts"]), one["on"]) for i, one in stored.labels.items()}
            found[side] = Elsewhere(stored.site, place, labels)
    return found
