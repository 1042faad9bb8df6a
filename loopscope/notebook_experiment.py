"""One experiment as pandas tables: its stages, tables, documents and activations."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
from loopscope.specs.suggest import did_you_mean
from loopscope.state.read_only import looking_at
from loopscope.state.records import ArtifactRecord, ObjectRecord
from loopscope.views.activations import PromptActivations, sparse_activations
from loopscope.views.documents.objects import StatusDocument, object_document
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.numbers import testable
from loopscope.views.origin import origin_of
from loopscope.views.robustness import robustness_of
from loopscope.views.sensitivity.looks import looks_at
from loopscope.views.stages import stage_word
from loopscope.views.tensors import read_tensors

Side = Literal["coarse", "fine"]


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
