"""``describe``: one object, or all of a kind, at length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from loopscope.commands.objects.get import Words
from loopscope.commands.selection import (
    EverywhereOption,
    FieldSelectorOption,
    SelectorOption,
    selection_of,
)
from loopscope.context import forecaster_of_this_machine, now
from loopscope.specs.blinding import BLINDED
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.db import events, jobs, objects, shares
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord
from loopscope.terminal.printable import printable
from loopscope.views.present import present, present_jobs

if TYPE_CHECKING:
    from loopscope.views.chain import Chain
    from loopscope.views.sensitivity.rows import ShownLooks

EXAMPLES = {
    "describe": ("describe experiment france", "describe mappings -l loopscope.dev/sweep=layers"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("describe")(describe)


def describe(
    context: typer.Context,
    words: Words,
    selector: SelectorOption = None,
    field_selector: FieldSelectorOption = None,
    everywhere: EverywhereOption = False,
) -> None:
    """Print objects with their conditions, artifact, jobs and events; without NAME all of KIND."""
    wanted = selection_of(context.obj, words, selector, field_selector, everywhere=everywhere)
    state = context.obj.open_to_read()
    with state.database.read() as connection:
        records = wanted.records(connection)
        texts = [
            _described(state, connection, record, alone=len(records) == 1) for record in records
        ]
    if not texts:
        print(wanted.nothing_found)
        return
    print(printable("\n".join(texts)), end="")


def _described(
    state: StateFolder, connection: Connection, record: ObjectRecord, *, alone: bool
) -> str:
    from loopscope.reports.tables.describe import describe_text  # late: `get` must stay quick
    from loopscope.views.forecasts import Stored
    from loopscope.views.past_runs import PastRuns
    from loopscope.views.quantisation import quantisations

    digest = record.wanted_digest
    helping = shares.listed(connection, ended=True)
    ours = [
        job
        for job in jobs.listed(connection, ended=True)
        if digest == (helping[job.id].digest if job.id in helping else job.digest)
    ]
    artifact = artifact_index.get(connection, digest) if digest else None
    took = foreseen = None
    if artifact is not None:
        took = PastRuns(connection, state.artifacts).seconds(artifact)
        foreseen = forecaster_of_this_machine(Stored(connection)).of(record)
    owned = objects.owned_by(connection, record.uid)
    return describe_text(
        record,
        events.listed(connection, record.key),
        present_jobs(connection, ours),
        artifact,
        now=now(),
        children=present(connection, owned),
        took=took,
        foreseen=foreseen,
        quantised=quantisations(connection, (record, *owned)),
        rated=_rated(state, record),
        looked_at=_looked_at(state, record) if alone else None,
        chained=_chained(state, record, owned) if alone else (),
        robust=_robust(state, record) if alone else (),
        letters=_letters(state, record, owned),
        shares=helping,
    )


def _letters(
    state: StateFolder, record: ObjectRecord, owned: Sequence[ObjectRecord]
) -> list[list[str]]:
    """Return the arms of a blinded steering under their letters; empty where none is blinded."""
    own = next((one for one in (record, *owned) if BLINDED in one.status.summary), None)
    if own is None:
        return []
    from loopscope.views.blinding import HEAD, blinded_arms, letter_rows  # late: arrow takes time

    try:
        return [HEAD, *letter_rows(blinded_arms(own, state.artifacts))]
    except Corrupt:
        return []  # a damaged artifact: its object must be shown all the same


def _chained(
    state: StateFolder, record: ObjectRecord, cells: Sequence[ObjectRecord]
) -> Sequence[Chain]:
    """Return the chains of dictionaries that the cells of a sweep make up."""
    asked = [one.key for one in cells if "matrix" in record.spec and "splitting" in one.spec]
    if len(asked) < 2:
        return ()
    from loopscope.views.chain import chains
    from loopscope.views.experiment import ExperimentView  # late: tables take a second

    try:
        return chains([ExperimentView.load(state, key) for key in asked])
    except (Corrupt, LookupError):
        return ()  # a damaged artifact: its object must be shown all the same


def _robust(state: StateFolder, record: ObjectRecord) -> list[list[str]]:
    """Return the arms under other sampling rules and openings; empty where nobody ran any."""
    if record.key.kind != "Experiment" or "matrix" in record.spec:
        return []
    from loopscope.views.experiment import ExperimentView  # late: tables take a second
    from loopscope.views.robustness import HEAD, robustness_of, robustness_rows

    try:
        rows = robustness_rows(robustness_of(ExperimentView.load(state, record.key)))
    except (Corrupt, LookupError):
        return []  # a damaged artifact: its object must be shown all the same
    return [list(HEAD), *rows] if rows else []


def _looked_at(state: StateFolder, record: ObjectRecord) -> ShownLooks | None:
    """Return what would have changed a verdict."""
    owner = {"Experiment": record.key, "Steering": record.owner}.get(record.key.kind)
    if owner is None or "verdict" not in record.status.summary or "matrix" in record.spec:
        return None
    from loopscope.views.experiment import ExperimentView  # late: tables take a second
    from loopscope.views.sensitivity.looks import looks_at
    from loopscope.views.sensitivity.rows import told_looks

    try:
        return told_looks(looks_at(ExperimentView.load(state, owner)))
    except (Corrupt, LookupError):
        return None  # a damaged artifact: its object must be shown all the same


def _rated(state: StateFolder, record: ObjectRecord) -> list[list[str]]:
    """Return the table of what people said of a steering's texts; empty without any."""
    made = record.status.artifact
    if record.key.kind != "Steering" or made is None or record.owner is None:
        return []
    if not (state.ratings / made.content_digest).is_dir():
        return []
    from loopscope.views.experiment import ExperimentView  # late: tables take a second
    from loopscope.views.ratings import HEAD, ratings_of

    view = ExperimentView.load(state, record.owner)
    stage = view.stage("steering")
    rows = list(ratings_of(view.rated, stage).rows()) if stage.available else []
    return [list(HEAD), *rows] if rows else []
