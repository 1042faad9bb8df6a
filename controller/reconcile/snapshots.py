"""Snapshots: everything that a plan may look at, read for one key."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from loopscope.controller.reconcile.adoption import Hashing
from loopscope.reconcilers.plan import (
    Answered,
    Desired,
    Kept,
    Observed,
    Snapshot,
    Unmet,
    Wanted,
)
from loopscope.reconcilers.references import InputReference, input_references, object_references
from loopscope.specs.actions import CODE_REVISIONS, Action
from loopscope.specs.artifacts.decomposition import FEATURES
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.specs.registration import InForce
from loopscope.specs.revisions import Rule, newer_rules, revisions_of
from loopscope.specs.rules import Selection
from loopscope.specs.status import ArtifactReference
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.store import ArtifactStore, Corrupt, reading
from loopscope.state.db import inputs, job_ways, objects, pauses
from loopscope.state.db.connection import Connection
from loopscope.state.records import ArtifactRecord, InputRecord, JobHead, ObjectRecord
from loopscope.state.register import Intentions

_FEATURE_COLUMNS = FEATURES.named(
    "latent", "selectivity", "firing_rate_target", "firing_rate_neutral", "q_value"
)


class Objects(Protocol):
    """Where objects are read: the store, or the store as it would be."""

    def get(self, key: Key) -> ObjectRecord | None:
        """Return one object, or None."""

    def owned_by(self, uid: str) -> list[ObjectRecord]:
        """Return the objects that name ``uid`` as their owner."""

    def input(self, reference: InputReference) -> InputRecord | None:
        """Return what a model or dictionary reference resolved to, if that is known."""


@dataclass(frozen=True)
class StoredObjects:
    """The objects as they are stored."""

    connection: Connection

    def get(self, key: Key) -> ObjectRecord | None:
        """Return one object, or None."""
        return objects.get(self.connection, key)

    def owned_by(self, uid: str) -> list[ObjectRecord]:
        """Return the objects that name ``uid`` as their owner."""
        return objects.owned_by(self.connection, uid)

    def input(self, reference: InputReference) -> InputRecord | None:
        """Return what a model or dictionary reference resolved to, if that is known."""
        return inputs.get(self.connection, reference.digest)


def read_snapshot(
    connection: Connection, key: Key, now: float, where: Objects | None = None
) -> Snapshot | None:
    """Return what a plan for ``key`` may look at, or None when the object is gone."""
    where = where or StoredObjects(connection)
    record = where.get(key)
    if record is None:
        return None
    owned = where.owned_by(record.uid) if key.kind in OWNER_KINDS else []
    children = {child.key: child for child in owned}
    references = {
        name: found
        for name in object_references(record)
        if (found := children.get(name) or where.get(name)) is not None
    }
    upstream = [r.status.artifact.digest for r in references.values() if r.status.artifact]
    paused_by, paused_stages = _paused(connection, record)
    return Snapshot(
        object=record,
        now=now,
        references=references,
        children=tuple(children.values()),
        artifacts={
            digest: artifact
            for digest in upstream
            if (artifact := artifact_index.get(connection, digest)) is not None
        },
        inputs={
            reference.digest: known
            for reference in input_references(record)
            if (known := where.input(reference)) is not None
        },
        paused_by=paused_by,
        paused_stages=paused_stages,
        is_protected=record.status.artifact is not None and _is_protected(where, record),
    )


def _is_protected(where: Objects, record: ObjectRecord) -> bool:
    if record.is_protected:
        return True
    owner = where.get(record.owner) if record.owner is not None else None
    return owner is not None and _is_protected(where, owner)


def _paused(connection: Connection, record: ObjectRecord) -> tuple[str | None, dict[str, str]]:
    """Return the pause that holds the object back, and for each stage the one that holds its jobs.

    An object that is Ready has nothing to hold.
    """
    scopes = {} if record.ready else pauses.listed(connection)
    if not scopes:
        return None, {}
    by_stage: dict[str, str] = {
        stage: scope
        for stage in CODE_REVISIONS
        if (scope := pauses.holding(scopes, record.key, record.owner, stage)) is not None
    }
    own = None if record.key.kind in OWNER_KINDS else record.key.kind.lower()
    return pauses.holding(scopes, record.key, record.owner, own), by_stage


class Known(NamedTuple):
    """What the database knows of a desired action."""

    job: JobHead | None = None
    artifact: ArtifactRecord | None = None
    needs: tuple[Known, ...] = ()
    """The same of each shared artifact that the action needs, in order."""


def known_of(connection: Connection, desired: Desired, key: Key) -> Known:
    """Return what an action's newest job means for an object, and its artifact, if they exist."""
    if not isinstance(desired, Wanted):
        return Known()
    own, *needs = (
        Known(
            job_ways.last_word(connection, action, key),
            artifact_index.get(connection, action.digest),
        )
        for action in (desired.action, *desired.needs)
    )
    return own._replace(needs=tuple(needs))


@dataclass
class Observer:
    """Looks at artifacts on disk and derives candidates from their feature tables."""

    artifacts: ArtifactStore
    hashing: Hashing
    intentions: Intentions | None = None
    """The register of the state folder, where it matters what was registered."""
    _candidates: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)

    def observe(self, snapshot: Snapshot, desired: Desired, known: Known) -> Observed:
        """Return what exists for a desired action; what was thrown away is taken back.

        Where it is not there, but whole work of older rules is, that is what is returned; of a
        protected object also where it was made for another one by the rules of now.
        Reads the disk: not to be called in a write transaction. Raises StillHashing.
        """
        found = self._observe(snapshot.object, desired, known)
        if found.artifact is not None and not snapshot.is_protected:
            return found
        kept = self._kept(snapshot, desired)
        return Observed(artifact=kept.artifact, kept=kept) if kept is not None else found

    def _registered(self, record: ObjectRecord) -> InForce | None:
        owner = record.owner
        if self.intentions is None or owner is None or record.key.kind != "Steering":
            return None
        return self.intentions.of(f"{owner.namespace}/{owner.name}")

    def older_rules(self, record: ObjectRecord) -> str | None:
        """Return by which rules an object's artifact was made, in words, if by older ones.

        By its stage's, those of a shared artifact that the stage needed, or those of an outcome.
        Of an artifact that is not whole, None: there is nothing left to keep.
        """
        reference = record.status.artifact
        if reference is None:
            return None
        words = "; ".join(newer_rules(self.revisions(reference.stage, reference.digest)))
        return words if words and self._whole(reference) is not None else None

    def revisions(self, stage: str, digest: str) -> dict[Rule, int]:
        """Return the revisions of the rules that made an artifact, its own stage's first."""
        try:
            return revisions_of(self.artifacts.manifest(stage, digest))
        except (Corrupt, OSError):
            return {}

    def _whole(self, reference: ArtifactReference) -> ArtifactRecord | None:
        try:
            artifact = self.artifacts.record(reference.stage, reference.digest)
            self.artifacts.check_presence(artifact)
        except Corrupt:
            return None
        return artifact

    def _kept(self, snapshot: Snapshot, desired: Desired) -> Kept | None:
        reference = snapshot.object.status.artifact
        if reference is None or isinstance(desired, Answered):
            return None
        if isinstance(desired, Wanted) and desired.action.digest == reference.digest:
            return None
        older = self.older_rules(snapshot.object)
        behind = [str(k) for k, one in snapshot.references.items() if one.status.is_of_older_rules]
        if older is None and not behind:
            return None
        artifact = self._whole(reference)
        if artifact is None:
            return None
        if older is None:
            return Kept(artifact, f"rests on work of older rules: {', '.join(behind)}")
        return Kept(artifact, f"made by older rules: {older}")

    def _observe(self, record: ObjectRecord, desired: Desired, known: Known) -> Observed:
        if not isinstance(desired, Wanted):
            return Observed()
        own = self._action(record, desired.action, known)
        own = replace(own, registered=self._registered(record))
        if own.artifact is not None and own.damage is None:
            return own
        needs = [
            Unmet(action, self._action(record, action, known_of_it))
            for action, known_of_it in zip(desired.needs, known.needs, strict=True)
        ]
        return replace(own, unmet=tuple(one for one in needs if not one.observed.is_in_place))

    def _action(self, record: ObjectRecord, action: Action, known: Known) -> Observed:
        job, indexed = known.job, known.artifact
        self.artifacts.take_back(action.stage, action.digest)
        if indexed is not None:
            self.hashing.forget(action.digest)
        artifact = indexed or self._on_disk(action, record.key)
        if artifact is None:
            return Observed(job=job)
        try:
            self.artifacts.check_presence(artifact)
            candidates = self._selected(artifact, action, record)
        except Corrupt as damage:
            return Observed(artifact=artifact, damage=str(damage), job=job)
        return Observed(
            artifact=artifact, job=job, candidates=candidates, unindexed=indexed is None
        )

    def _on_disk(self, action: Action, key: Key) -> ArtifactRecord | None:
        """Return a whole artifact that the database does not know, if there is one."""
        try:
            found = self.artifacts.record(action.stage, action.digest)
        except Corrupt:
            return None
        return found if self.hashing.is_whole(found, key) else None

    def _selected(
        self, artifact: ArtifactRecord, action: Action, record: ObjectRecord
    ) -> tuple[int, ...] | None:
        if action.stage != "decomposition":
            return None
        from pyarrow import parquet  # 40 MB that a server, a plan and an apply seldom need

        selection = Selection.model_validate(record.spec["selection"])
        cache_key = (artifact.content_digest, selection.model_dump_json())
        if cache_key not in self._candidates:
            path = self.artifacts.fetch_file(artifact, FEATURES.name)
            try:
                with reading(path.name):
                    table = parquet.read_table(path, columns=_FEATURE_COLUMNS).to_pydict()
                found = tuple(selection.candidates(table))
            except (ValueError, KeyError, TypeError, NotImplementedError) as error:
                raise Corrupt(f"{path.name} cannot be read: {error}") from None
            self._candidates[cache_key] = found
        return self._candidates[cache_key]
