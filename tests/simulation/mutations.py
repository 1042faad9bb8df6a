"""Defects planted in the product, one at a time, in memory: proof that the simulation bites.

Each mutation takes away one protection. ``caught_by`` names seeds that notice it, found by
search (``make mutants``); ``why_not`` says of the others why this net cannot hold them, and which
test does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from controller import commit, controller, snapshots, verification, work_queue
from controller.controller import Controller
from reconcilers import decomposition, experiment, mapping, stage, steering
from state import artifacts, files, jobs, objects, publication
from state.artifacts import ArtifactStore
from tests import fake_worker

Patch = tuple[Any, str, Any]


@dataclass(frozen=True)
class Mutation:
    """A protection that is taken away by ``patches`` (owner, attribute, replacement)."""

    name: str
    takes_away: str
    patches: Callable[[], list[Patch]]
    caught_by: tuple[int, ...] = ()
    notices: str = ""
    """What the first of these seeds says."""
    why_not: str = ""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Let the product lack the protection while the context lasts."""
        with ExitStack() as stack:
            for owner, name, replacement in self.patches():
                stack.enter_context(mock.patch.object(owner, name, replacement))
            yield


def _nothing(*_: Any, **__: Any) -> None:
    return None


# -- fencing and leases ----------------------------------------------------------------


def _unfenced(writing: str) -> list[Patch]:
    """One of the worker's writes no longer asks whose job it is."""
    real_own, real = jobs._own, getattr(jobs, writing)

    def own_anyway(connection: Any, job_id: int, token: int, **values: Any) -> None:
        columns = jobs.tables.jobs
        connection.execute(columns.update().where(columns.c.id == job_id).values(**values))

    def write(connection: Any, job_id: int, *args: Any, **kwargs: Any) -> Any:
        with (
            mock.patch.object(jobs, "_own", own_anyway),
            mock.patch.object(jobs, "_check", lambda c, i, _token: jobs.get(c, i)),
        ):
            return real(connection, job_id, *args, **kwargs)

    assert real_own is not None
    return [(jobs, writing, write)]


def _same_token() -> list[Patch]:
    def counter(connection: Any, name: str) -> int:
        if name == "fencing_token":
            return objects.counter(connection, name) or objects.raise_counter(connection, name)
        return objects.raise_counter(connection, name)

    def forgetful(connection: Any, job_id: int, *args: Any, **kwargs: Any) -> Any:
        connection.execute(jobs.tables.job_starts.delete())
        return real(connection, job_id, *args, **kwargs)

    real = jobs.claim
    return [(jobs, "raise_counter", counter), (jobs, "claim", forgetful)]


def _leases_never_lost() -> list[Patch]:
    return [(controller, "lost_jobs", lambda *_: [])]


def _losses_forget_the_token() -> list[Patch]:
    """A lease is taken back although its worker renewed it meanwhile."""

    def expired(running: list[Any], executor: Any, now: float) -> list[Any]:
        return [job for job in running if job.started_at is not None and job.started_at + 30 <= now]

    return [(controller, "lost_jobs", expired)]


# -- specs, generations, freshness -------------------------------------------------------


def _conflicts_ignored() -> list[Patch]:
    def update(connection: Any, read: Any, status: Any, wanted: str | None) -> bool:
        current = objects.get(connection, read.key)
        return current is not None and real(connection, current, status, wanted)

    real = objects.update_status
    return [(objects, "update_status", update)]


def _ready_of_any_generation() -> list[Patch]:
    def is_true(self: Any, type_: Any, generation: int) -> bool:
        found = self.condition(type_)
        return found is not None and found.status == "True"

    from specs.status import Status

    return [(Status, "is_true", is_true)]


def _stale_upstreams_used() -> list[Patch]:
    def reference(snapshot: Any, key: Any, used: str | None) -> Any:
        record = snapshot.references.get(key)
        if record is not None and record.status.artifact is not None and record.status.summary:
            return record
        return real(snapshot, key, used)

    real = stage.ready_reference
    return [(module, "ready_reference", reference) for module in (decomposition, mapping, steering)]


def _observed_too_early() -> list[Patch]:
    """Apply itself claims that the new generation was acted on."""

    def apply(connection: Any, key: Any, spec: Any, **kwargs: Any) -> Any:
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


def _generation_stays() -> list[Patch]:
    def apply(connection: Any, key: Any, spec: Any, **kwargs: Any) -> Any:
        before = objects.get(connection, key)
        outcome = real(connection, key, spec, **kwargs)
        if outcome == "configured" and before is not None:
            o = objects.tables.objects
            where = o.update().where(o.c.name == key.name, o.c.kind == key.kind)
            connection.execute(where.values(generation=before.generation))
        return outcome

    real = objects.apply
    return [(objects, "apply", apply)]


def _digest_without(kind: str, field_name: str) -> list[Patch]:
    """A field of the spec does not enter the action digest."""
    from specs.actions import Action

    def digest(self: Any) -> str:
        declared = {n: v for n, v in self.declared.items() if n != field_name}
        return str(real(replace(self, declared=declared) if self.stage == kind else self))

    real = Action.digest.fget
    assert real is not None
    return [(Action, "digest", property(digest))]


def _children_stay() -> list[Patch]:
    def plan(snapshot: Any) -> Any:
        return replace(real(snapshot), remove=())

    real = experiment.plan
    return [(experiment, "plan", plan)]


def _orphans_stay() -> list[Patch]:
    return [(objects, "owned_by", lambda *_: [])]


# -- artifacts -----------------------------------------------------------------------------


def _no_fsync() -> list[Patch]:
    return [(artifacts, "fsync_path", _nothing), (files, "fsync_path", _nothing)]


def _no_fsync_of_folders() -> list[Patch]:
    def only_files(path: Any) -> None:
        if path.is_file():
            real(path)

    real = files.fsync_path
    return [(artifacts, "fsync_path", only_files), (files, "fsync_path", only_files)]


def _manifest_first() -> list[Patch]:
    """The folder is in its place, manifest and all, before its bytes are."""

    def seal(self: ArtifactStore, staging: Any, manifest: Any) -> Any:
        record = real(self, staging, manifest)
        final = self.folder(record.stage, record.digest)
        if not final.exists():
            final.parent.mkdir(parents=True, exist_ok=True)
            final.mkdir()
            (final / artifacts.MANIFEST).write_bytes((staging / artifacts.MANIFEST).read_bytes())
            for path in sorted(p for p in staging.rglob("*") if p.is_file()):
                files.failpoints.reach("replace")
                target = final / path.relative_to(staging)
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(path.read_bytes())
        return record

    real = ArtifactStore.seal

    def publish(self: ArtifactStore, staging: Any, record: Any) -> None:
        return None

    return [(ArtifactStore, "seal", seal), (ArtifactStore, "publish", publish)]


def _adopted_unseen() -> list[Patch]:
    def on_disk(self: Any, action: Any) -> Any:
        try:
            return self.artifacts.record(action.stage, action.digest)
        except (artifacts.Corrupt, OSError):
            return None

    return [
        (snapshots.Observer, "_on_disk", on_disk),
    ]


def _presence_unchecked() -> list[Patch]:
    return [(ArtifactStore, "check_presence", _nothing)]


def _never_hashed_again() -> list[Patch]:
    return [(verification.Verifier, "verify_some", lambda *_: [])]


def _inputs_unverified() -> list[Patch]:
    def trusting(state: Any, stage_name: str, digest: str) -> Any:
        return state.artifacts.folder(stage_name, digest)

    return [(fake_worker, "verified_folder", trusting)]


def _inputs_vouch_for_themselves() -> list[Patch]:
    """A worker compares its inputs with their own manifest, not with what was published."""

    def trusting(state: Any, stage_name: str, digest: str) -> Any:
        state.artifacts.verify(state.artifacts.record(stage_name, digest))
        return state.artifacts.folder(stage_name, digest)

    return [(fake_worker, "verified_folder", trusting)]


def _index_forgotten_only() -> list[Patch]:
    """What is damaged is forgotten, but stays where it is."""
    return [(ArtifactStore, "quarantine", _nothing)]


def _folder_set_aside_only() -> list[Patch]:
    """What is damaged is moved away, but the index still knows it."""
    return [(commit.artifact_index, "forget", _nothing)]


def _ready_stays() -> list[Patch]:
    return [(objects, "take_ready_away", lambda c, digest, *_, **__: objects.wanting(c, digest))]


# -- jobs ----------------------------------------------------------------------------------


def _no_dedupe() -> list[Patch]:
    """Neither the look nor the unique index stops a second job of a digest."""

    def enqueue(connection: Any, action: Any, key: Any, generation: int, *, now: float) -> Any:
        connection.exec_driver_sql("drop index if exists jobs_one_active_per_digest")
        return jobs._insert(
            connection, stage=action.stage, digest=action.digest, key=key,
            generation=generation, payload=action.payload, now=now,
        ), True  # fmt: skip

    return [(jobs, "enqueue", enqueue)]


def _unwanted_run_on() -> list[Patch]:
    return [(Controller, "_cancel_unwanted_jobs", _nothing)]


def _rate_ignored() -> list[Patch]:
    return [(jobs, "starts_since", lambda *_: []), (controller, "start_allowed_at", lambda *_: 0.0)]


def _success_before_its_artifact() -> list[Patch]:
    """Success and index are two transactions."""

    def publish(state: Any, job: Any, staging: Any, record: Any, *, now: float) -> None:
        with state.database.write() as connection:
            jobs.succeed(connection, job.id, job.token, now=now)
            publication.artifact_index.record(connection, record)
        with state.database.write():
            state.artifacts.publish(staging, record)

    return [(fake_worker, "publish", publish)]


def _plan_in_two_commits() -> list[Patch]:
    """Status first, job and children in a second transaction."""

    def in_two(connection: Any, store: Any, snapshot: Any, plan: Any, now: float) -> Any:
        first = replace(plan, enqueue=None, apply=(), remove=())
        real(connection, store, snapshot, first, now)
        connection.commit()
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        record = objects.get(connection, snapshot.object.key)
        return real(connection, store, replace(snapshot, object=record), plan, now)

    real = commit.commit
    return [(controller, "commit", in_two)]


# -- wake-ups ------------------------------------------------------------------------------


def _log_read_skips() -> list[Patch]:
    def skipping(connection: Any, version: int) -> Any:
        return [change for change in real(connection, version) if change.resource_version % 3]

    real = objects.changes_since
    return [(controller.objects, "changes_since", skipping)]


def _gone_ignored() -> list[Patch]:
    def never_gone(connection: Any, version: int) -> Any:
        try:
            return real(connection, version)
        except objects.Gone:
            return []

    real = objects.changes_since
    return [(controller.objects, "changes_since", never_gone)]


def _backoff_kept() -> list[Patch]:
    return [(work_queue.WorkQueue, "forget", _nothing)]


def _resync_looks_at_nothing() -> list[Patch]:
    def resync(self: Controller) -> None:
        first = not self._next_resync_at
        if first:
            real(self)

    real = Controller._resync_if_due
    return [(Controller, "_resync_if_due", resync)]


def _synchronous_off() -> list[Patch]:
    return []


MUTATIONS: tuple[Mutation, ...] = (
    Mutation("succeed-unfenced", "the fencing check of a success", lambda: _unfenced("succeed")),
    Mutation("fail-unfenced", "the fencing check of a failure", lambda: _unfenced("fail")),
    Mutation("release-unfenced", "the fencing check of giving back", lambda: _unfenced("release")),
    Mutation(
        "heartbeat-unfenced", "the fencing check of a heartbeat", lambda: _unfenced("heartbeat")
    ),
    Mutation("token-not-raised", "a higher token at each claim", _same_token),
    Mutation("lease-renewal", "the renewal of leases", lambda: [(jobs, "heartbeat", _nothing)]),
    Mutation("lease-expiry", "the taking back of lost leases", _leases_never_lost),
    Mutation(
        "lease-by-start", "the look at the lease instead of the start", _losses_forget_the_token
    ),
    Mutation(
        "conflict-check",
        "the comparison of versions before a status is written",
        _conflicts_ignored,
    ),
    Mutation(
        "generation-check", "the comparison of generations in Ready", _ready_of_any_generation
    ),
    Mutation("generation-raise", "a new generation for a new spec", _generation_stays),
    Mutation(
        "observed-too-early",
        "observedGeneration written with the decision only",
        _observed_too_early,
    ),
    Mutation(
        "upstream-freshness", "the wait for an upstream that is not Ready", _stale_upstreams_used
    ),
    Mutation(
        "digest-lacks-prompts",
        "the prompts in the capture's digest",
        lambda: _digest_without("capture", "prompts"),
    ),
    Mutation(
        "digest-lacks-content",
        "the capture's content in the decomposition's digest",
        lambda: _digest_without("decomposition", "capture"),
    ),
    Mutation("child-removal", "the removal of a child that the spec dropped", _children_stay),
    Mutation("cascade", "the deletion of what a deleted object owns", _orphans_stay),
    Mutation("fsync", "every fsync of artifacts", _no_fsync),
    Mutation("fsync-folders", "the fsync of folders", _no_fsync_of_folders),
    Mutation("manifest-last", "the rename of a whole folder into place", _manifest_first),
    Mutation(
        "adoption-verified", "the hashes before an unknown artifact is taken over", _adopted_unseen
    ),
    Mutation("presence-check", "the look at an artifact at each reconcile", _presence_unchecked),
    Mutation("hash-again", "the hashing of known artifacts in turns", _never_hashed_again),
    Mutation("inputs-verified", "the worker's hashing of its inputs", _inputs_unverified),
    Mutation(
        "inputs-known", "the comparison of inputs with the index", _inputs_vouch_for_themselves
    ),
    Mutation("quarantine-folder", "the moving aside of a damaged folder", _index_forgotten_only),
    Mutation("quarantine-index", "the forgetting of a damaged artifact", _folder_set_aside_only),
    Mutation("quarantine-ready", "Ready taken away with the artifact", _ready_stays),
    Mutation("dedupe", "one active job per digest", _no_dedupe),
    Mutation("cancel-unwanted", "the cancelling of unwanted jobs", _unwanted_run_on),
    Mutation("start-rate", "the limit of job starts", _rate_ignored),
    Mutation(
        "publish-in-two", "success and artifact in one transaction", _success_before_its_artifact
    ),
    Mutation("plan-in-two", "a plan in one transaction", _plan_in_two_commits),
    Mutation("log-read-skips", "every line of the change log", _log_read_skips),
    Mutation("gone", "the listing after Gone", _gone_ignored),
    Mutation("backoff-forgotten", "the end of a backoff after a success", _backoff_kept),
    Mutation("resync", "resyncs after the first", _resync_looks_at_nothing),
    Mutation(
        "synchronous-full",
        "SQLite's own fsync",
        _synchronous_off,
        why_not="the simulated disk takes SQLite at its word; test_state_database.py holds the setting",
    ),  # fmt: skip
)
