"""Results as pandas tables: the way into a state folder for notebooks and scripts.

Everything is read, nothing is written, and no torch is imported. Tables have the columns that
``docs/artifacts.md`` names, and in their ``attrs`` where they come from and the columns' units;
pandas writes these to Parquet.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, Literal, cast, get_args

import pandas

from loopscope.specs.artifacts.capture import RESIDUAL
from loopscope.specs.artifacts.decomposition import (
    ACTIVATIONS,
    CANDIDATE,
    FEATURES,
    PROMPTS,
    bundled_features,
)
from loopscope.specs.artifacts.gate import Gate
from loopscope.specs.artifacts.mapping import GATE, PAIRS
from loopscope.specs.artifacts.steering import ARMS, SAMPLES, SCORES, VERDICT
from loopscope.specs.artifacts.verdict import Verdict
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import NODE_NAMES
from loopscope.specs.suggest import did_you_mean
from loopscope.state.db import objects
from loopscope.state.read_only import looking_at
from loopscope.state.records import ArtifactRecord, ObjectRecord
from loopscope.views.activations import PromptActivations, sparse_activations
from loopscope.views.documents.objects import StatusDocument, object_document
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.numbers import testable
from loopscope.views.origin import origin_of
from loopscope.views.present import present
from loopscope.views.replication.axes import load_replicated, replicated_table
from loopscope.views.robustness import robustness_of
from loopscope.views.sensitivity.looks import looks_at
from loopscope.views.stages import by_owner, stage_word
from loopscope.views.sweeps import sweep_of
from loopscope.views.tensors import read_tensors
from loopscope.views.together import verdicts_together

Side = Literal["coarse", "fine"]
_OVERVIEW = ("gate", "verdict", "contrast", "estimate", "low", "high", "n")
"""The keys of an Experiment's summary that make columns of the overview."""


class State:
    """A state folder. It is read anew at each question."""

    def __init__(self, path: str | os.PathLike[str], namespace: str = "default") -> None:
        self.path = Path(path).resolve()
        self.namespace = namespace
        with looking_at(self.path):
            pass  # so that a wrong folder is reported here

    @property
    def experiments(self) -> Experiments:
        """The experiments of the namespace, by name."""
        return Experiments(self)

    def __repr__(self) -> str:
        return f"<Loopscope state {self.path}, namespace {self.namespace}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self)[1:-1])}</p>{self.experiments._repr_html_()}"


class Experiments(Mapping[str, "Experiment"]):
    """The experiments of a namespace: a mapping from names, and a table of all."""

    def __init__(self, state: State) -> None:
        self._state = state

    def __getitem__(self, name: str) -> Experiment:
        key = Key("Experiment", self._state.namespace, name)
        with looking_at(self._state.path) as folder, folder.database.read() as connection:
            record = next(iter(present(connection, objects.get_all(connection, [key]))), None)
        if record is None:
            hint = did_you_mean(name, self) if len(self) else "; there are none"
            raise KeyError(f"no experiment {name!r} in namespace {key.namespace}{hint}")
        return Experiment(self._state.path, record)

    def __iter__(self) -> Iterator[str]:
        return iter([record.key.name for record, _ in self._records()])

    def __len__(self) -> int:
        return len(self._records())

    def __repr__(self) -> str:
        return f"<experiments: {', '.join(self) or 'none'}>"

    def _repr_html_(self) -> str:
        return str(self.table().to_html(na_rep="", float_format=lambda value: f"{value:.3g}"))

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def sweep(self, name: str) -> pandas.DataFrame:
        """Return one row a cell of a sweep: its axes as columns, then those of ``table``.

        Also ``state`` (``Ready``, or the reason why not), the gate's ``percentile``, and the
        verdict ``corrected`` over the whole sweep with its ``p``. A cell that does not exist yet
        has a row. ``_axis`` stands behind the name of an axis that another column has, too. Raises
        KeyError for an experiment that is no sweep.
        """
        records = {record.key.name: (record, owned) for record, owned in self._records()}
        if name not in records or "matrix" not in records[name][0].spec:
            sweeps = [one for one, (record, _) in records.items() if "matrix" in record.spec]
            hint = did_you_mean(name, sweeps) if sweeps else "; there are none"
            raise KeyError(f"no sweep {name!r}{hint}")
        record, owned = records[name]
        grid = sweep_of(record, [one for one in owned if one.key.kind == "Experiment"])
        index = pandas.Index([cell.name for cell in grid.cells], name="name")
        found = self.table().reindex(index)
        found["ready"] = [cell.state == "Ready" for cell in grid.cells]
        found["state"] = [cell.state for cell in grid.cells]
        found["percentile"] = [cell.percentile for cell in grid.cells]
        found["corrected"] = [cell.row.corrected or None for cell in grid.cells]
        found["p"] = [cell.row.p for cell in grid.cells]
        for place, axis in enumerate(grid.axes):
            title = f"{axis.name}_axis" if axis.name in found else axis.name
            found.insert(place, title, [cell.values[place] for cell in grid.cells])
        return found

    def table(self) -> pandas.DataFrame:
        """Return one row an experiment: ready, a word a stage, gate, and the verdict's numbers."""
        rows = []
        for record, children in self._records():
            prefix = f"{record.key.name}-"
            stages = {child.key.name.removeprefix(prefix): child for child in children}
            row: dict[str, object] = {"name": record.key.name, "ready": record.ready}
            row |= {stage: stage_word(stages[stage]) for stage in NODE_NAMES if stage in stages}
            summary = testable(record.status.summary) if record.ready else {}
            row |= {name: summary.get(name) for name in _OVERVIEW}
            rows.append(row)
        columns = ["name", "ready", *NODE_NAMES, *_OVERVIEW]
        return pandas.DataFrame(rows, columns=columns).set_index("name")

    def replicated(self, name: str) -> pandas.DataFrame:
        """Return one row a value of each axis along which an experiment was replicated.

        Raises KeyError for an experiment that does not exist.
        """
        with looking_at(self._state.path) as folder:
            key = Key("Experiment", self._state.namespace, name)
            return replicated_table(load_replicated(folder, key))

    def together(self, names: Iterable[str] | None = None) -> pandas.DataFrame:
        """Return the verdicts of several experiments, corrected together (Holm), one row each.

        ``verdict`` is each one's own word, ``corrected`` the word that survives the correction,
        ``p`` its p after it. A sweep stands for its cells; without ``names`` all
        experiments count. The last row, ``pooled``, has one contrast of the random-effects mean:
        the smaller. Raises LookupError for fewer than two with a steering part.
        """
        records = {record.key.name: (record, owned) for record, owned in self._records()}
        wanted = list(records) if names is None else list(names)
        for name in wanted:
            if name not in records:
                raise KeyError(f"no experiment {name!r}{did_you_mean(name, list(records))}")
        asked: dict[str, ObjectRecord] = {}
        for name in wanted:
            record, owned = records[name]
            cells = owned if "matrix" in record.spec else [record]
            asked |= {cell.key.name: cell for cell in cells}
        return verdicts_together(list(asked.values()))

    def _records(self) -> list[tuple[ObjectRecord, list[ObjectRecord]]]:
        namespace = self._state.namespace
        with looking_at(self._state.path) as folder, folder.database.read() as connection:
            everything = present(connection, objects.listed(connection, namespace=namespace))
        owned = by_owner(everything)
        found = [record for record in everything if record.key.kind == "Experiment"]
        return [(record, owned.get(record.uid, [])) for record in found]


@dataclass(frozen=True)
class Artifact:
    """A verified artifact: where its files lie, its headline numbers and its manifest."""

    stage: str
    digest: str
    content_digest: str
    folder: Path
    files: tuple[str, ...]
    metrics: Mapping[str, Any]
    manifest: Mapping[str, Any]


class Experiment:
    """One experiment as it stood when it was read; read it from the state again for changes.

    A table that is not there raises LookupError with the reason; an artifact whose bytes are not
    those that its manifest names is not shown either.
    """

    def __init__(self, path: Path, record: ObjectRecord) -> None:
        self._path = path
        self._record = record

    def __repr__(self) -> str:
        return f"<experiment {self.name}: {'ready' if self.ready else 'not ready'}>"

    def _repr_html_(self) -> str:
        summary = testable(self._record.status.summary) if self.ready else {}
        said = (f"{name} {summary[name]}" for name in ("gate", "verdict") if summary.get(name))
        head = ", ".join([repr(self)[1:-1], *said])
        return f"<p>{escape(head)}</p>{self.stages().to_html(na_rep='')}"

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self._record.key.name

    @property
    def ready(self) -> bool:
        """Whether every stage is Ready for the spec as it stands."""
        return self._record.ready

    @property
    def spec(self) -> Mapping[str, Any]:
        """The spec with its defaults and all prompts, as ``get -o json`` prints it."""
        return dict(object_document(self._record)["spec"])  # a copy: it may be changed

    @property
    def status(self) -> StatusDocument:
        """Conditions, summary and inputs, as ``get -o json`` prints them."""
        return object_document(self._record)["status"]

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """The verified artifacts that there are, by stage."""
        stages = self._view.stages.items()
        return {
            name: _artifact(stage.artifact, stage)
            for name, stage in stages
            if stage.artifact is not None
        }

    def stages(self) -> pandas.DataFrame:
        """Return one row a stage: how far it is, why no artifact is there, its digest."""
        rows = [
            {
                "stage": name,
                "state": stage_word(stage.record),
                "problem": "" if stage.answered else stage.problem,
                "digest": stage.artifact.digest if stage.artifact else None,
            }
            for name, stage in self._view.stages.items()
        ]
        return pandas.DataFrame(rows).set_index("stage")

    def pairs(self) -> pandas.DataFrame:
        """Return the coarse and fine latents side by side (``pairs.parquet``)."""
        return self.table(PAIRS.name)

    def features(self, side: Side = "coarse") -> pandas.DataFrame:
        """Return one row a latent of the coarse or the fine dictionary, with ``candidate``."""
        frame = self._described(self._view.stage(_checked(side)), FEATURES.name)
        frame[CANDIDATE.name] = frame["latent"].isin(self._view.candidates(side))
        return frame

    def scores(self) -> pandas.DataFrame:
        """Return every outcome of every steered text (``steering_scores.parquet``)."""
        return self.table(SCORES.name)

    def samples(self) -> pandas.DataFrame:
        """Return the texts that were generated (``steering_samples.parquet``)."""
        return self.table(SAMPLES.name)

    def arms(self) -> pandas.DataFrame:
        """Return one row an arm and strength (``arms.parquet``)."""
        return self.table(ARMS.name)

    def prompts(self) -> pandas.DataFrame:
        """Return the prompts with their condition, split and group (``prompts.parquet``)."""
        return self.table(PROMPTS.name)

    def activations(self, side: Side = "coarse") -> PromptActivations:
        """Return the prompt activations of a dictionary: sparse, prompts × latents.

        ``matrix`` is a SciPy array, ``frame(latents)`` a table, ``data_array(latents)`` an
        ``xarray.DataArray``, ``top_prompts(latent)`` the prompts on which a latent fires most.
        """
        stage = self._view.stage(_checked(side))
        matrix = sparse_activations(stage.path(ACTIVATIONS.name))
        return PromptActivations(matrix, stage.table(PROMPTS).copy(), self._origin(stage))

    def top_prompts(self, latent: int, side: Side = "coarse", count: int = 10) -> pandas.DataFrame:
        """Return the prompts on which a latent fires most, strongest first."""
        return self.activations(side).top_prompts(latent, count)

    def residuals(self) -> pandas.DataFrame:
        """Return the residual vectors: one row a prompt (or token), one column a dimension.

        The index is ``prompt_id`` and ``position`` (the token's place, BOS being 0).
        """
        stage = self._view.stage("capture")
        tensors = read_tensors(stage.path(RESIDUAL.name))
        names = stage.table_named(PROMPTS.name)["prompt_id"].to_numpy()
        index = pandas.MultiIndex.from_arrays(
            [names[tensors["prompt_index"]], tensors["position"]], names=["prompt_id", "position"]
        )
        frame = pandas.DataFrame(tensors["residual"], index=index)
        frame.attrs = self._origin(stage)
        return frame

    def gate(self) -> Gate:
        """Return the gate's answer and its reasons (``gate.json``)."""
        return cast(Gate, self.document(GATE.name))

    def confirmation(self) -> str:
        """Return how many candidates passed again on test prompts, or ``not confirmed: …``."""
        return self._view.confirmation

    def verdict(self) -> Verdict:
        """Return the verdict on steering with every contrast (``verdict.json``)."""
        return cast(Verdict, self.document(VERDICT.name))

    def sensitivity(self) -> pandas.DataFrame:
        """Return the verdict under other choices than declared, one row a choice.

        The columns are those of ``sensitivity.parquet``; runs that nobody made have rows without
        numbers. Raises LookupError where nothing was steered.
        """
        stage, looks = self._view.stage("steering"), looks_at(self._view)
        if not looks.rows:
            raise LookupError(f"{self.name} has no verdict on steering: {stage.problem}")
        frame = looks.table()
        frame.attrs = self._origin(stage)
        return frame

    def robustness(self) -> pandas.DataFrame:
        """Return each arm under every sampling rule and set of openings that was run.

        The columns are those of ``robustness.parquet``; empty where there is no other run.
        """
        frame = robustness_of(self._view).arms
        frame.attrs = self._origin(self._view.stage("steering"))
        return frame

    def table(self, name: str) -> pandas.DataFrame:
        """Return any table of ``docs/artifacts.md`` by its file name in the evidence bundle."""
        for side in get_args(Side):
            if name == bundled_features(side):
                return self.features(side)
        return self._described(self._stage_of(name), name)

    def document(self, name: str) -> dict[str, Any]:
        """Return any JSON file of ``docs/artifacts.md`` by its name."""
        return dict(self._stage_of(name).document_named(name))

    def _described(self, stage: StageView, name: str) -> pandas.DataFrame:
        frame = stage.table_named(name).copy()
        frame.attrs = self._origin(stage, name, frame.columns)
        return frame

    def _origin(
        self, stage: StageView, name: str = "", columns: Collection[str] = ()
    ) -> dict[str, Any]:
        assert stage.artifact is not None  # its file was read
        return origin_of(self._record.key, stage.artifact, name, columns)

    def _stage_of(self, name: str) -> StageView:
        """Return the stage whose artifact has this file. Raises LookupError with the reason."""
        stages = list(self._view.stages.values())
        for stage in [self._view.prompts, *stages] if name == PROMPTS.name else stages:
            if stage.artifact is not None and name in stage.artifact.files:
                return stage
        missing = [f"{stage.name} ({stage.problem})" for stage in stages if not stage.available]
        files = [file for stage in stages if stage.artifact for file in stage.artifact.files]
        if missing:
            raise LookupError(f"{self.name} has no {name}; not there yet: {'; '.join(missing)}")
        raise LookupError(f"{self.name} has no {name}{did_you_mean(name, files)}")

    @cached_property
    def _view(self) -> ExperimentView:
        with looking_at(self._path) as folder:
            return ExperimentView.load(folder, self._record.key)


def _checked(side: Side) -> Side:
    if side not in ("coarse", "fine"):
        raise ValueError(f"side is {side!r}; expected 'coarse' or 'fine'")
    return side


def _artifact(record: ArtifactRecord, stage: StageView) -> Artifact:
    assert stage.folder is not None  # a stage with an artifact has a folder
    return Artifact(
        record.stage,
        record.digest,
        record.content_digest,
        stage.folder,
        tuple(record.files),
        dict(stage.metrics),
        dict(stage.manifest),
    )
