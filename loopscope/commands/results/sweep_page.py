"""A sweep as its page shows it: its grid, its chains of dictionaries, what it tries again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loopscope.specs.keys import REPLICATES_LABEL, Key
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord

if TYPE_CHECKING:
    from loopscope.views.chain import Chain
    from loopscope.views.replication.axes import Replicated
    from loopscope.views.replication.pairs import Pairs
    from loopscope.views.sweeps import Sweep


def sweep_named(connection: Connection, namespace: str, name: str) -> Sweep | None:
    """Return the sweep of this name; None for anything else."""
    stored = objects.get(connection, Key("Experiment", namespace, name))
    if stored is None or "matrix" not in stored.spec:
        return None
    from loopscope.views.sweeps import load_sweep  # late: numpy takes its time

    return load_sweep(connection, stored.key)


def chains_of(state: StateFolder, cells: Sequence[ObjectRecord]) -> list[Chain]:
    """Return the chains of dictionaries that the cells of a sweep make up."""
    asked = [cell for cell in cells if "splitting" in cell.spec]
    if len(asked) < 2:
        return []
    from loopscope.views.chain import chains
    from loopscope.views.experiment import ExperimentView

    return chains([ExperimentView.load(state, cell.key) for cell in asked])


def replicated_by(state: StateFolder, namespace: str, name: str) -> tuple[Replicated, Pairs] | None:
    """Return what a sweep tries again; None for any other sweep, and where that is gone."""
    with state.database.read() as connection:
        stored = objects.get(connection, Key("Experiment", namespace, name))
        wanted = stored.labels.get(REPLICATES_LABEL) if stored is not None else None
        first = Key("Experiment", namespace, str(wanted))
        if wanted is None or objects.get(connection, first) is None:
            return None
    from loopscope.inputs.thresholds import thresholds_of
    from loopscope.views.replication.axes import load_replicated
    from loopscope.views.replication.pairs import load_pairs

    found = load_replicated(state, first, thresholds_of=thresholds_of)
    return found, load_pairs(state, first)
