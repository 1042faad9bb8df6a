"""A result tried again along axes: of each value what came of it, and what broke it first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas

from loopscope.numerics.replication.firing import Floats
from loopscope.numerics.replication.rows import row_differences
from loopscope.specs.artifacts.capture import REFERENCE, RESIDUAL
from loopscope.specs.json_values import JsonObject
from loopscope.specs.keys import REPLICATES_LABEL, Key
from loopscope.specs.payloads.references import DictionaryReference
from loopscope.specs.pipeline import NodeName
from loopscope.specs.replication import distance
from loopscope.specs.sweep import combinations, matrix_of, replaced, suffix_of
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.db import objects
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import MINUS, MISSING, signed, signed_interval
from loopscope.views.replication.replication import COMPARED, Answer, Replication, replication
from loopscope.views.replication.run import Run, StageRun, read_json, run_of

CAPTURES_MAX = 64
"""Captures of other places that a run's rows are held against, the newest first."""
COLUMNS = ("axis", "value", "answer", "parts at", "because", "difference", "interval (90 %)")
UNKNOWN: Answer = "not known"
OTHER: Answer = "another effect"
Thresholds = Callable[[DictionaryReference], Floats | None]


@dataclass(frozen=True)
class Tried:
    """A value of an axis and what came of it; ``found`` is None, with the reason, before that.

    ``distance`` is how far it is from the experiment, where the axis has an order.
    """

    axis: str
    value: str
    experiment: str
    found: Replication | None
    problem: str
    distance: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as texts, one for each of ``COLUMNS``."""
        if self.found is None:
            return (self.axis, self.value, "not finished", MISSING, self.problem, *(MISSING,) * 2)
        parted, effects = self.found.parted, self.found.effects
        worst = max(effects, key=lambda one: abs(one.difference), default=None)
        return (
            self.axis,
            self.value,
            self.found.answer,
            parted.stage if parted is not None else MISSING,
            ", ".join(cause.name for cause in self.found.causes) or MISSING,
            f"{worst.contrast.replace('-', f' {MINUS} ')} {signed(worst.difference)}"
            if worst is not None
            else MISSING,
            signed_interval(worst.low_90, worst.high_90) if worst is not None else MISSING,
        )


@dataclass(frozen=True)
class Replicated:
    """An experiment tried again; ``alone`` says how its own rows compare with prompts run alone."""

    name: str
    tried: tuple[Tried, ...]
    alone: str

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that were tried, in their order."""
        return tuple(dict.fromkeys(one.axis for one in self.tried))

    def sentence(self, axis: str) -> str:
        """Return what an axis says: where it holds, and the smallest difference that breaks it."""
        own = [one for one in self.tried if one.axis == axis]
        held = [one.value for one in own if one.found is not None and one.found.holds]
        told = [f"holds at {len(held)} of {len(own)}"]
        if held:
            told[0] += f" ({', '.join(held)})"
        answers = {one.value: one.found.answer for one in own if one.found is not None}
        if unknown := [value for value, answer in answers.items() if answer == UNKNOWN]:
            told.append(f"not known at {', '.join(unknown)}")
        if waiting := [one.value for one in own if one.found is None]:
            told.append(f"not finished at {', '.join(waiting)}")
        broken = [one for one in own if one.found is not None and one.found.answer == OTHER]
        if broken and all(one.distance is not None for one in broken):
            least = min(broken, key=lambda one: one.distance or 0.0)
            told.append(f"the smallest difference that breaks it is {least.value}")
        elif broken:
            told.append(f"another effect at {', '.join(one.value for one in broken)}")
        return f"{axis}: {'; '.join(told)}."


def load_replicated(
    state: StateFolder,
    key: Key,
    *,
    reference: Run | None = None,
    thresholds_of: Thresholds = lambda found: None,
) -> Replicated:
    """Return an experiment beside every sweep that replicates it.

    ``reference`` is the run that all are held against, by default the experiment's own; a bundle
    is, and then the experiment itself is the first row. Raises KeyError without the experiment,
    and Corrupt.
    """
    view = ExperimentView.load(state, key)
    own = run_of(view)
    first = reference or own
    captures = _captures(state)
    thresholds = _thresholds(first, thresholds_of)

    def beside(axis: str, value: str, name: Key, far: float | None) -> Tried:
        try:
            found = ExperimentView.load(state, name)
        except KeyError:
            return Tried(axis, value, name.name, None, "the controller has not made it", far)
        missing = next((one for one in found.unfinished if one.name in COMPARED), None)
        if missing is not None or found.stale:
            why = missing.problem if missing is not None else "its spec was edited"
            return Tried(axis, value, name.name, None, why, far)
        compared = replication(first, run_of(found), others=captures, thresholds=thresholds)
        return Tried(axis, value, name.name, compared, "", far)

    tried = [] if reference is None else [beside("none", "the same spec", key, None)]
    for sweep in sweeps_of(state, key):
        matrix = matrix_of(sweep.spec)
        for values in combinations(matrix):
            ((axis, value),) = values
            cell = Key("Experiment", key.namespace, f"{sweep.key.name}-{suffix_of(values)}")
            spec = cast(JsonObject, dict(sweep.spec))
            changed = spec
            for path, given in matrix[axis][value].items():
                changed = replaced(changed, tuple(path.split(".")), given)
            tried.append(beside(axis, value, cell, distance(axis, spec, changed)))
    return Replicated(view.name, tuple(tried), _alone(own))


def sweeps_of(state: StateFolder, key: Key) -> list[ObjectRecord]:
    """Return the sweeps that replicate an experiment, by name."""
    with state.database.read() as connection:
        known = objects.listed(connection, kind="Experiment", namespace=key.namespace)
    mine = [one for one in known if one.labels.get(REPLICATES_LABEL) == key.name]
    return [one for one in sorted(mine, key=lambda one: one.key.name) if "matrix" in one.spec]


def _captures(state: StateFolder) -> list[StageRun]:
    """Return the newest captures of a state folder, to find a run's rows among them."""
    with state.database.read() as connection:
        known = [one for one in artifact_index.listed(connection) if one.stage == "capture"]
    found = []
    for artifact in sorted(known, key=lambda one: -one.created_at)[:CAPTURES_MAX]:
        try:
            folder = state.artifacts.fetch(artifact)
            manifest = read_json(folder / MANIFEST)
        except (Corrupt, OSError):  # another one's damage is no reason to compare nothing
            continue
        files = {name: folder / name for name in artifact.files}
        found.append(StageRun(artifact.digest, artifact.content_digest, manifest, files))
    return found


def _thresholds(run: Run, thresholds_of: Thresholds) -> dict[NodeName, Floats]:
    sides: tuple[NodeName, ...] = ("coarse", "fine")
    found = {
        side: thresholds_of(cast(DictionaryReference, run.stages[side].inputs["dictionary"]))
        for side in sides
        if side in run.stages and "dictionary" in run.stages[side].inputs
    }
    return {side: values for side, values in found.items() if values is not None}


def _alone(run: Run) -> str:
    """Return how far a few prompts that ran alone, in plain Hugging Face, are from their batch."""
    capture = run.stages.get("capture")
    if capture is None:
        return "not known: there is no capture"
    rows, alone = capture.tensors(RESIDUAL.name), capture.tensors(REFERENCE.name)
    if rows is None or alone is None:
        return "not known: the capture is of an earlier version"
    again = np.unique(alone["prompt_index"])
    batch = rows["residual"][np.isin(rows["prompt_index"], again)]
    order = np.argsort(alone["prompt_index"], kind="stable")
    own = alone["residual"][order]
    if own.shape != batch.shape:
        return "not known: other rows were kept"
    apart = row_differences(own.astype(np.float64), batch.astype(np.float64))
    return (
        f"{len(again)} prompts that ran alone in plain Hugging Face code differ from the same in a "
        f"batch by at most {float(apart.max()):.1g} of their length"
    )


def replicated_table(found: Replicated) -> pandas.DataFrame:
    """Return one row a value of an axis; the effect is that of the contrast that differs most."""
    rows = []
    for one in found.tried:
        seen = one.found
        effects = seen.effects if seen is not None else ()
        worst = max(effects, key=lambda effect: abs(effect.difference), default=None)
        rows.append(
            {
                "axis": one.axis,
                "value": one.value,
                "experiment": one.experiment,
                "answer": seen.answer if seen is not None else None,
                "parts_at": seen.parted.stage if seen is not None and seen.parted else None,
                "because": [cause.name for cause in seen.causes] if seen is not None else [],
                "contrast": worst.contrast if worst is not None else None,
                "difference": worst.difference if worst is not None else np.nan,
                "low_90": worst.low_90 if worst is not None else np.nan,
                "high_90": worst.high_90 if worst is not None else np.nan,
                "p": worst.p if worst is not None else np.nan,
            }
        )
    return pandas.DataFrame(rows)


def replicated_lines(found: Replicated) -> Iterator[tuple[str, ...]]:
    """Yield the table's head and rows as texts."""
    yield COLUMNS
    for one in found.tried:
        yield one.cells
