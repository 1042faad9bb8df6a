"""An experiment as it stands: its stages, their verified artifacts, and why one is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pandas
import pyarrow
import pyarrow.parquet

from loopscope.specs.artifact_files import Document, Shape, Table
from loopscope.specs.artifacts.decomposition import FEATURES, PROMPTS
from loopscope.specs.artifacts.mapping import GATE
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import NODE_NAMES, NODES, NodeName
from loopscope.specs.ratings import RatingSet
from loopscope.specs.revisions import changed_rules, revisions_of
from loopscope.specs.rules import Selection
from loopscope.state import ratings
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.store import ArtifactStore, Corrupt, unusable
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import ArtifactRecord, ObjectRecord
from loopscope.views.blinding import LetterRow, blinded_arms
from loopscope.views.other_runs import OtherRun, other_runs
from loopscope.views.present import present
from loopscope.views.quantisation import Quantisation, quantisations


@dataclass(frozen=True)
class StageView:
    """One stage of an experiment.

    ``artifact``, ``folder`` and ``manifest`` are there only when the object is Ready for its
    current spec and the artifact's bytes were verified; else ``problem`` is why not. It is also
    set for an artifact of other rules, whose files are there but may lack today's columns.
    """

    name: NodeName
    record: ObjectRecord | None
    artifact: ArtifactRecord | None = None
    folder: Path | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    _read: dict[str, object] = field(default_factory=dict, repr=False, compare=False)

    @property
    def available(self) -> bool:
        """Whether there is a verified artifact to show, with the columns of today."""
        return self.artifact is not None and not self.problem

    @property
    def answered(self) -> bool:
        """Whether the stage is Ready without an artifact: not running was its answer."""
        record = self.record
        return record is not None and record.ready and record.status.artifact is None

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The headline numbers; empty when the stage is not available."""
        return self.artifact.metrics if self.artifact else {}

    @property
    def spec(self) -> Mapping[str, Any]:
        """The stage's own spec: what its artifact answers."""
        return self.record.spec if self.record else {}

    def path(self, name: str) -> Path:
        """Return a payload file's path. Raises LookupError if the file does not exist."""
        if self.folder is None or self.artifact is None or name not in self.artifact.files:
            raise LookupError(f"{self.name} has no {name}: {self.problem or 'not in its artifact'}")
        return self.folder / name

    def table(self, table: Table) -> pandas.DataFrame:
        """Return a table of the artifact, read once. Raises LookupError and Corrupt."""
        return self.table_named(table.name)

    def document(self, document: Document[Shape]) -> Shape:
        """Return a document of the artifact, read once. Raises LookupError and Corrupt."""
        found: Shape = self.document_named(document.name)
        return found

    def table_named(self, name: str) -> pandas.DataFrame:
        """Return a Parquet file by its name, declared or not, as ``table`` does."""
        if name not in self._read:
            path = self.path(name)
            try:
                self._read[name] = pyarrow.parquet.read_table(path).to_pandas()
            except (pyarrow.ArrowException, ValueError, OSError, NotImplementedError) as error:
                raise Corrupt(f"{path} cannot be read: {error}") from None
        return self._read[name]

    def document_named(self, name: str) -> Any:
        """Return a JSON file by its name, declared or not, as ``document`` does."""
        if name not in self._read:
            path = self.path(name)
            try:
                self._read[name] = json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, OSError, RecursionError) as error:
                raise Corrupt(f"{path} cannot be read: {error}") from None
        return self._read[name]


@dataclass(frozen=True)
class ExperimentView:
    """An Experiment with its stages, read in one snapshot of the database."""

    experiment: ObjectRecord
    stages: Mapping[NodeName, StageView]
    quantised: tuple[Quantisation, ...] = ()
    """What quantising the model's weights did to the dictionaries, where a spec asks for that."""
    rated: Sequence[RatingSet] = ()
    """What people said of the texts of its steering."""
    others: Sequence[OtherRun] = ()
    """Experiments of its namespace that differ from it in one choice alone."""
    blinded: Sequence[LetterRow] = ()
    """The arms of a steering that is blinded, under their letters."""
    others_steered: Mapping[str, StageView] = field(default_factory=dict)
    """The steering of those that draw, or open, otherwise, by the experiment's name."""
    owner: ObjectRecord | None = None
    """The sweep or the study that it is one of, as long as that is there."""

    @staticmethod
    def load(state: StateFolder, key: Key) -> ExperimentView:
        """Read an experiment. Raises KeyError if it does not exist."""
        with state.database.read() as connection:
            stored = objects.get(connection, key)
            if stored is None:
                raise KeyError(str(key))
            experiment, *owned = present(
                connection, [stored, *objects.owned_by(connection, stored.uid)]
            )
            children = {child.key.name: child for child in owned}
            records = {stage: children.get(f"{key.name}-{stage}") for stage in NODE_NAMES}
            artifacts = {
                stage: artifact_index.get(connection, record.status.artifact.digest)
                for stage, record in records.items()
                if record is not None and record.status.artifact is not None
            }
            quantised = quantisations(connection, records.values())
            known = objects.listed(connection, kind="Experiment", namespace=key.namespace)
            others = other_runs(experiment, known)
            drawn = _steered(connection, key, others)
            owner = _owner(connection, experiment)
        stages: dict[NodeName, StageView] = {}
        for name in NODE_NAMES:
            if not NODES[name].is_in(experiment.spec):
                continue
            stages[name] = _stage(name, records, artifacts.get(name), state.artifacts)
        steered = stages["steering"].artifact if "steering" in stages else None
        rated = ratings.stored(state.ratings, steered.content_digest) if steered else ()
        own, nobody = MappingProxyType(stages), dict.fromkeys(NODE_NAMES)
        elsewhere = {
            name: _stage("steering", {**nobody, "steering": record}, made, state.artifacts)
            for name, (record, made) in drawn.items()
        }
        blinded = blinded_arms(records["steering"], state.artifacts)
        return ExperimentView(experiment, own, quantised, rated, others, blinded, elsewhere, owner)

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.experiment.key.name

    @property
    def stale(self) -> bool:
        """Whether the spec was edited and the stages do not yet answer the edit."""
        return self.experiment.status.observed_generation != self.experiment.generation

    @property
    def unfinished(self) -> list[StageView]:
        """The stages that have neither an artifact nor an answer."""
        return [s for s in self.stages.values() if s.artifact is None and not s.answered]

    def stage(self, name: NodeName) -> StageView:
        """Return a stage; one that the spec does not ask for has that as its problem."""
        return self.stages.get(name) or StageView(
            name, None, problem="the spec does not ask for it"
        )

    @property
    def prompts(self) -> StageView:
        """The stage with the fullest ``prompts.parquet``: a decomposition's records the split.

        Captures of earlier versions knew it, too, and decompositions had no such table.
        """
        coarse = self.stage("coarse")
        knows = coarse.artifact is not None and PROMPTS.name in coarse.artifact.files
        return coarse if knows else self.stage("capture")

    @property
    def confirmation(self) -> str:
        """How many anchors passed again on test prompts, or ``not confirmed: …``, and why."""
        stage = self.stage("mapping")
        if stage.artifact is None:
            return "not confirmed: the mapping is not available"
        if not stage.available:
            return str(stage.metrics.get("confirmation", "not confirmed: it is of older rules"))
        return str(stage.document(GATE).get("confirmation", "not confirmed: no test split"))

    def candidates(self, side: Literal["coarse", "fine"]) -> list[int]:
        """Return a decomposition's candidate latents, best first. Raises LookupError."""
        stage = self.stage(side)
        features = stage.table(FEATURES)
        assert stage.record is not None  # a stage with an artifact has a record
        recorded = stage.record.status.summary.get("candidates")
        if recorded is not None:
            return [int(latent) for latent in recorded]
        columns = {name: features[name].tolist() for name in features.columns}
        return Selection.model_validate(stage.spec["selection"]).candidates(columns)


def _owner(connection: Connection, experiment: ObjectRecord) -> ObjectRecord | None:
    if experiment.owner is None:
        return None
    found = objects.get(connection, experiment.owner)
    return found if found is not None and found.uid == experiment.owner_uid else None


Steered = tuple[ObjectRecord, ArtifactRecord | None]
OTHERS_MAX = 20
"""Other runs whose texts are read."""


def _steered(connection: Connection, key: Key, others: Sequence[OtherRun]) -> dict[str, Steered]:
    """Return the steering of each run that draws, or opens, otherwise, with its artifact."""
    found: dict[str, Steered] = {}
    beside = [one for one in others if one.axis in ("sampling", "openings")]
    for one in beside[:OTHERS_MAX]:
        record = objects.get(connection, Key("Steering", key.namespace, f"{one.name}-steering"))
        reference = None if record is None else record.status.artifact
        if record is not None and reference is not None:
            found[one.name] = record, artifact_index.get(connection, reference.digest)
    return found


def _stage(
    name: NodeName,
    records: Mapping[NodeName, ObjectRecord | None],
    known: ArtifactRecord | None,
    store: ArtifactStore,
) -> StageView:
    record = records[name]
    problem = _problem(name, records)
    reference = record.status.artifact if record else None
    if problem or reference is None:
        return StageView(name, record, problem=problem)
    try:
        artifact = known or store.record(reference.stage, reference.digest)
        if artifact.content_digest != reference.content_digest:
            raise Corrupt(f"{name}: the artifact is not the one that the status names")
        folder = store.fetch(artifact)
        manifest = store.manifest(artifact.stage, artifact.digest)
    except (Corrupt, OSError) as error:
        return StageView(name, record, problem=unusable(error))
    return StageView(
        name,
        record,
        artifact,
        folder,
        MappingProxyType(manifest),
        _older(manifest),
    )


def _older(manifest: Mapping[str, Any]) -> str:
    """Return how the rules of an artifact differ from those of now, or nothing."""
    changed = changed_rules(revisions_of(manifest))
    if not changed:
        return ""
    return (
        f"Outdated: it was made by another version of Loopscope ({'; '.join(changed)})"
        "; its files are in the bundle (`loopscope export`), and `loopscope plan` shows what would "
        "run again"
    )


def _problem(name: NodeName, records: Mapping[NodeName, ObjectRecord | None]) -> str:
    """Return why a stage has nothing to show, or an empty string."""
    record = records[name]
    if record is None:
        return "NotCreated: the controller has not created this stage yet"
    ready = record.status.condition("Ready")
    if ready is None or record.status.observed_generation != record.generation:
        return "Pending: the controller has not looked at this spec yet"
    if not record.ready or record.status.artifact is None:
        return f"{ready.reason}: {ready.message}"
    for upstream in NODES[name].reads:
        source = records[upstream]
        used = record.status.inputs.get(upstream, {}).get("contentDigest")
        now = source.status.artifact if source else None
        if used and now and used != now.content_digest:
            return f"Outdated: it was made from an earlier {upstream}; the controller will renew it"
    return ""
