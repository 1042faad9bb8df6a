"""What the product is like without one of its protections: patches, one function a defect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

from loopscope.controller.controller import Controller
from loopscope.controller.jobs import scheduling
from loopscope.controller.jobs.leases import LeaseWatch
from loopscope.controller.reconcile import (
    commit,
    converged,
    reconciling,
    snapshots,
    verification,
    work_queue,
)
from loopscope.controller.sources.folder_source import FolderSource
from loopscope.reconcilers import decomposition, experiment, mapping, stage, steering
from loopscope.specs.actions import Action
from loopscope.specs.status import Status
from loopscope.state import files
from loopscope.state.artifacts import collection, folder_store, manifests, publication
from loopscope.state.artifacts.folder_store import FolderStore
from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.db import jobs, objects
from loopscope.state.db.connection import Connection
from tests import fake_worker

Patch = tuple[Any, str, Any]
"""Owner, attribute, replacement."""


def nothing(*_: Any, **__: Any) -> None:
    return None


# -- fencing and leases ----------------------------------------------------------------


def unfenced(writing: str) -> list[Patch]:
    """One of the worker's writes no longer asks whose job it is."""
    real = getattr(jobs, writing)

    def own_anyway(connection: Connection, job_id: int, token: int, **values: Any) -> None:
        columns = jobs.tables.jobs
        connection.execute(columns.update().where(columns.c.id == job_id).values(**values))

    def write(connection: Connection, job_id: int, *args: Any, **kwargs: Any) -> Any:
        with (
            mock.patch.object(jobs, "_own", own_anyway),
            mock.patch.object(jobs, "_check", lambda c, i, _token: jobs.get(c, i)),
        ):
            return real(connection, job_id, *args, **kwargs)

    return [(jobs, writing, write)]


def same_token() -> list[Patch]:
    def counter(connection: Connection, name: str) -> int:
        if name == "fencing_token":
            return objects.counter(connection, name) or objects.raise_counter(connection, name)
        return objects.raise_counter(connection, name)

    def forgetful(connection: Connection, job_id: int, *args: Any, **kwargs: Any) -> Any:
        connection.execute(jobs.tables.job_starts.delete())
        return real(connection, job_id, *args, **kwargs)

    real = jobs.claim
    return [(jobs, "raise_counter", counter), (jobs, "claim", forgetful)]


def leases_not_renewed() -> list[Patch]:
    def heartbeat(connection: Connection, job_id: int, token: int, *_: Any, **__: Any) -> None:
        jobs._check(connection, job_id, token)

    return [(jobs, "heartbeat", heartbeat)]


def leases_never_lost() -> list[Patch]:
    return [(LeaseWatch, "lost", lambda *_: [])]


# -- specs, generations, freshness -------------------------------------------------------


def conflicts_ignored() -> list[Patch]:
    def update(connection: Connection, read: Any, status: Any, wanted: str | None) -> bool:
        current = objects.get(connection, read.key)
        return current is not None and real(connection, current, status, wanted)

    real = objects.update_status
    return [(objects, "update_status", update)]


def ready_of_any_generation() -> list[Patch]:
    def is_true(self: Any, type_: Any, generation: int) -> bool:
        found = self.condition(type_)
        return found is not None and found.status == "True"

    return [(Status, "is_true", is_true)]


def _was_ready(status: Any) -> bool:
    return bool(status.is_true("Ready", status.observed_generation))


def stale_upstreams_used() -> list[Patch]:
    def reference(snapshot: Any, key: Any, used: str | None) -> Any:
        record = snapshot.references.get(key)
        if record is not None and _was_ready(record.status):
            return record
        return real(snapshot, key, used)

    real = stage.ready_reference
    return [(module, "ready_reference", reference) for module in (decomposition, mapping, steering)]


def observed_too_early() -> list[Patch]:
    """Apply itself claims that the new generation was acted on."""

    def apply(connection: Connection, key: Any, spec: Any, **kwargs: Any) -> Any:
        outcome = real(connection, key, spec, **kwargs)
        record = objects.get(connection, key)
        if outcome == "configured" and record is not None:
            told = [
                replace(c, observed_generation=record.generation) for c in record.status.conditions
            ]
            status = replace(
                record.status, observed_generation=record.generation, conditions=tuple(told)
            )
            objects.update_status(connection, record, status, record.wanted_digest)
        return outcome

    real = objects.apply
    return [(objects, "apply", apply)]


def generation_stays() -> list[Patch]:
    def apply(connection: Connection, key: Any, spec: Any, **kwargs: Any) -> Any:
        before = objects.get(connection, key)
        outcome = real(connection, key, spec, **kwargs)
        if outcome == "configured" and before is not None:
            o = objects.tables.objects
            where = o.update().where(o.c.name == key.name, o.c.kind == key.kind)
            connection.execute(where.values(generation=before.generation))
        return outcome

    real = objects.apply
    return [(objects, "apply", apply)]


def digest_without(kind: str, field_name: str) -> list[Patch]:
    """A field of the spec does not enter the action digest."""

    def digest(self: Any) -> str:
        declared = {n: v for n, v in self.declared.items() if n != field_name}
        return str(real(replace(self, declared=declared) if self.stage == kind else self))

    real = Action.digest.fget
    assert real is not None
    return [(Action, "digest", property(digest))]


def children_stay() -> list[Patch]:
    def plan(snapshot: Any) -> Any:
        return replace(real(snapshot), remove=())

    real = experiment.plan
    return [(experiment, "plan", plan)]


def orphans_stay() -> list[Patch]:
    def remove(connection: Connection, key: Any, *, now: float) -> Any:
        with mock.patch.object(objects, "owned_by", lambda *_: []):
            return real(connection, key, now=now)

    real = objects.remove
    return [(objects, "remove", remove)]


def prune_takes_all() -> list[Patch]:
    """A prune asks only what is left, not where an object came from."""

    def prune(self: FolderSource, seen: Any, now: float) -> None:
        with self.state.database.write() as connection:
            for record in objects.listed(connection):
                if record.key not in seen and record.owner is None:
                    objects.remove(connection, record.key, now=now)

    return [(FolderSource, "_prune", prune)]


# -- artifacts -----------------------------------------------------------------------------


def no_fsync() -> list[Patch]:
    return [(place, "fsync_path", nothing) for place in (folder_store, manifests, files)]


def no_fsync_of_folders() -> list[Patch]:
    def only_files(path: Any) -> None:
        if path.is_file():
            real(path)

    real = files.fsync_path
    return [(place, "fsync_path", only_files) for place in (folder_store, manifests, files)]


def manifest_first() -> list[Patch]:
    """The folder is in its place, manifest and all, before its bytes are."""

    def seal(self: FolderStore, staging: Any, manifest: Any) -> Any:
        record = real(self, staging, manifest)
        final = self.folder(record.stage, record.digest)
        if not final.exists():
            final.parent.mkdir(parents=True, exist_ok=True)
            final.mkdir()
            (final / MANIFEST).write_bytes((staging / MANIFEST).read_bytes())
            for path in sorted(p for p in staging.rglob("*") if p.is_file()):
                files.failpoints.reach("replace")
                target = final / path.relative_to(staging)
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(path.read_bytes())
        return record

    real = FolderStore.seal

    def publish(self: FolderStore, staging: Any, record: Any, _earlier: Any) -> Any:
        return record

    return [(FolderStore, "seal", seal), (FolderStore, "publish", publish)]


def adopted_unseen() -> list[Patch]:
    def on_disk(self: Any, action: Any) -> Any:
        try:
            return self.artifacts.record(action.stage, action.digest)
        except (Corrupt, OSError):
            return None

    return [
        (snapshots.Observer, "_on_disk", on_disk),
    ]


def presence_unchecked() -> list[Patch]:
    return [
        (FolderStore, "check_presence", nothing),
        (FolderStore, "stands", lambda _store, _record: True),
    ]


def converged_for_ever() -> list[Patch]:
    """What was in order once is never read again by a resync, whatever was written since."""
    return [
        (converged, "knowledge", lambda _connection: ()),
        (converged, "READ_AGAIN_SECONDS", 1e9),
    ]


def never_hashed_again() -> list[Patch]:
    return [(verification.Verifier, "verify_some", nothing)]


def inputs_unverified() -> list[Patch]:
    def trusting(state: Any, stage_name: str, digest: str) -> Any:
        return state.artifacts.folder(stage_name, digest)

    return [(fake_worker, "verified_folder", trusting)]


def index_forgotten_only() -> list[Patch]:
    """What is damaged is forgotten, but stays where it is."""
    return [(FolderStore, "quarantine", nothing)]


def folder_set_aside_only() -> list[Patch]:
    """What is damaged is moved away, but the index still knows it."""
    return [(commit.artifact_index, "forget", nothing)]


def ready_stays() -> list[Patch]:
    return [(objects, "take_ready_away", lambda c, digest, *_, **__: objects.wanting(c, digest))]


def collected_unasked() -> list[Patch]:
    """What was unneeded at the first look is taken, whoever came to need it meanwhile."""
    real, nobody = collection.collect, mock.Mock(return_value=set())

    def collect(state: Any, _reachability: Any, things: Any, now: float) -> Any:
        with mock.patch.object(collection, "waited_for", nobody):
            return real(state, mock.Mock(reachable=nobody), things, now)

    return [(collection, "collect", collect)]


# -- jobs ----------------------------------------------------------------------------------


def no_dedupe() -> list[Patch]:
    """Neither the look nor the unique index stops a second job of a digest."""

    def enqueue(
        connection: Connection, action: Any, key: Any, generation: int, *, now: float
    ) -> Any:
        connection.exec_driver_sql("drop index if exists jobs_one_active_per_digest")
        return jobs._insert(
            connection, key, stage=action.stage, digest=action.digest, generation=generation,
            payload=action.payload, code_revision=action.code_revision, now=now,
        ), True  # fmt: skip

    return [(jobs, "enqueue", enqueue)]


def unwanted_run_on() -> list[Patch]:
    return [(Controller, "_cancel_unwanted_jobs", nothing)]


def rate_ignored() -> list[Patch]:
    return [(jobs, "starts_since", lambda *_: []), (scheduling, "start_allowed_at", lambda *_: 0.0)]


def success_before_its_artifact() -> list[Patch]:
    """Success and index are two transactions."""

    def publish(state: Any, job: Any, staging: Any, record: Any, *, now: float) -> None:
        with state.database.write() as connection:
            jobs.succeed(connection, job.id, job.token, now=now)
            publication.artifact_index.record(connection, record)
        with state.database.write():
            state.artifacts.publish(staging, record)

    return [(fake_worker, "publish", publish)]


def plan_in_two_commits() -> list[Patch]:
    """Status first, job and children in a second transaction."""

    def in_two(connection: Connection, store: Any, snapshot: Any, plan: Any, now: float) -> Any:
        first = replace(plan, enqueue=None, apply=(), remove=())
        real(connection, store, snapshot, first, now)
        connection.commit()
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        record = objects.get(connection, snapshot.object.key)
        return real(connection, store, replace(snapshot, object=record), plan, now)

    real = commit.commit
    return [(reconciling, "commit", in_two)]


# -- wake-ups ------------------------------------------------------------------------------


def _changes_read_by(reading: Callable[[Any, int], Any]) -> list[Patch]:
    """Let the controller, and nobody else, read the change log in this way."""

    def read_changes(self: Controller) -> None:
        with mock.patch.object(objects, "changes_since", reading):
            real(self)

    real = Controller._read_changes
    return [(Controller, "_read_changes", read_changes)]


def log_read_skips() -> list[Patch]:
    def two_of_three(connection: Connection, version: int) -> Any:
        return [change for change in real(connection, version) if change.resource_version % 3]

    real = objects.changes_since
    return _changes_read_by(two_of_three)


def gone_ignored() -> list[Patch]:
    def never_gone(connection: Connection, version: int) -> Any:
        try:
            return real(connection, version)
        except objects.Gone:
            return []

    real = objects.changes_since
    return _changes_read_by(never_gone)


def backoff_kept() -> list[Patch]:
    return [(work_queue.WorkQueue, "forget", nothing)]


def resync_looks_at_nothing() -> list[Patch]:
    def resync(self: Controller) -> None:
        if not self._resyncs.next_at:  # the first one
            real(self)

    real = Controller._resync_if_due
    return [(Controller, "_resync_if_due", resync)]
