"""The promises that need two looks: what may follow on what was seen before.

A ``History`` is shown a state folder again and again and says what broke in between. The
stateless half is ``tests.promises`` and ``loopscope.state.invariants``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from loopscope.specs.keys import SOURCE_ANNOTATION, Key
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.db import jobs
from loopscope.state.invariants import Seen, Violation
from loopscope.state.job_facts import references_in
from loopscope.state.records import ArtifactRecord, JobHead, JobState, ObjectRecord

_FOLLOWS: dict[JobState, set[JobState]] = {
    "pending": {"pending", "running", "succeeded", "failed", "cancelled"},
    "running": {"pending", "running", "succeeded", "failed", "cancelled"},
    "succeeded": {"succeeded"},
    "failed": {"failed"},
    "cancelled": {"cancelled"},
}
"""Between two looks several steps may lie, so pending may have run and failed."""


@dataclass
class History:
    """What was seen at the last look. ``look`` compares with it and remembers the new state."""

    objects: dict[str, ObjectRecord] = field(default_factory=dict)
    jobs: dict[int, JobHead] = field(default_factory=dict)
    artifacts: dict[str, ArtifactRecord] = field(default_factory=dict)
    version: int = 0
    token: int = 0

    def look(self, seen: Seen, store: ArtifactStore, lost: Collection[str] = ()) -> list[Violation]:
        """Return what broke since the last look.

        ``lost`` are digests of artifacts that someone outside removed or moved: their absence
        is no fault of the collection.
        """
        now = {record.uid: record for record in seen.objects}
        found = [
            *self._generations_never_fall(now),
            *self._the_watch_sees_each_change_once(seen, now),
            *self._nothing_with_a_finalizer_vanishes(now),
            *self._reachable_artifacts_stay(seen, store, now, lost),
            *self._tokens_never_fall(seen),
            *self._jobs_end_once(seen),
        ]
        self.objects = now
        return found

    def _generations_never_fall(self, now: dict[str, ObjectRecord]) -> list[Violation]:
        """I6: neither ``generation`` nor ``observedGeneration`` ever falls."""
        found = []
        for before, after in self._still_there(now):
            pair = (before.generation, before.status.observed_generation)
            new_pair = (after.generation, after.status.observed_generation)
            if new_pair[0] < pair[0] or new_pair[1] < pair[1]:
                found.append(Violation("I6", str(after.key), f"{pair} became {new_pair}"))
            if before.spec != after.spec and new_pair[0] == pair[0]:
                what = f"its spec changed, its generation stayed {pair[0]}"
                found.append(Violation("I6", str(after.key), what))
        return found

    def _the_watch_sees_each_change_once(
        self, seen: Seen, now: dict[str, ObjectRecord]
    ) -> list[Violation]:
        """I7: ``resourceVersion`` strictly rises; a watch sees every later change once, or Gone."""
        since, newest = self.version, seen.version
        self.version = newest
        if newest < since:
            return [Violation("I7", "counter", f"resourceVersion fell from {since} to {newest}")]
        found = []
        for before, after in self._still_there(now):
            rose = after.resource_version > before.resource_version
            if _changed(before, after) and not rose:
                what = f"changed, but its version stayed {before.resource_version}"
                found.append(Violation("I7", str(after.key), what))
        later = [change for change in seen.changes if change.resource_version > since]
        if len(seen.changes) == len(later) and since:
            return found  # the log no longer reaches back: a watch is told Gone
        if [change.resource_version for change in later] != list(range(since + 1, newest + 1)):
            found.append(Violation("I7", "watch", f"not every version from {since} to {newest}"))
        told = {change.key for change in later}
        silent = {r.key for r in now.values() if r.resource_version > since} - told
        silent |= {r.key for uid, r in self.objects.items() if uid not in now} - told
        return found + [Violation("I7", str(key), "changed without a line") for key in silent]

    def _nothing_with_a_finalizer_vanishes(self, now: dict[str, ObjectRecord]) -> list[Violation]:
        """I8: nothing with a finalizer vanishes."""
        return [
            Violation("I8", str(record.key), f"vanished with {', '.join(record.finalizers)}")
            for uid, record in self.objects.items()
            if uid not in now and record.finalizers
        ]

    def _reachable_artifacts_stay(
        self,
        seen: Seen,
        store: ArtifactStore,
        now: dict[str, ObjectRecord],
        lost: Collection[str],
    ) -> list[Violation]:
        """I10: what a living object rests on is never collected, only set aside when damaged.

        Its own artifact, and those that it was made from: a geometry belongs to no object.
        """
        reachable = {r.status.artifact.digest for r in now.values() if r.status.artifact}
        for record in now.values():
            reachable |= set(references_in(record.status.inputs))
        found = []
        for digest, artifact in self.artifacts.items():
            gone = digest in reachable and not store.holds(artifact.stage, digest)
            if gone and digest not in lost and not _is_set_aside(store, artifact):
                what = "is gone and was not set aside"
                found.append(Violation("I10", f"{artifact.stage}/{digest[:12]}", what))
        self.artifacts = seen.artifacts
        return found

    def _tokens_never_fall(self, seen: Seen) -> list[Violation]:
        """I5: fencing tokens only rise: the counter, and the token of each job."""
        before, newest = self.token, seen.token
        self.token = newest
        if newest < before:
            return [Violation("I5", "counter", f"fencing token fell from {before} to {newest}")]
        return []

    def _jobs_end_once(self, seen: Seen) -> list[Violation]:
        """I12: a job ends in exactly one of succeeded, failed, cancelled, and stays.

        Also I5: a running job that changed hands did so under a higher token.
        """
        found = []
        now = {job.id: job for job in seen.jobs}
        for job_id, before in self.jobs.items():
            after = now.get(job_id)
            name = f"{before.stage} job {job_id}"
            if after is None:
                found.append(Violation("I12", name, f"vanished ({before.state})"))
                continue
            if after.state not in _FOLLOWS[before.state]:
                found.append(Violation("I12", name, f"{before.state} became {after.state}"))
            elif before.state not in jobs.ACTIVE and before != after:
                found.append(Violation("I12", name, f"changed after it had {before.state}"))
            if after.token < before.token:
                found.append(Violation("I5", name, f"token {before.token} became {after.token}"))
            handed_on = after.state == "running" and after.worker != before.worker
            if handed_on and after.token <= before.token:
                found.append(Violation("I5", name, f"changed hands under token {after.token}"))
        self.jobs = now
        return found

    def _still_there(self, now: dict[str, ObjectRecord]) -> list[tuple[ObjectRecord, ObjectRecord]]:
        return [(self.objects[uid], record) for uid, record in now.items() if uid in self.objects]


def pruned_only_its_own(
    before: Collection[ObjectRecord], after: Collection[ObjectRecord], folder: str, kept: set[Key]
) -> list[Violation]:
    """I9: a scan of ``folder`` prunes its own objects only, and none that a file still defines.

    Compares the objects before and after it. What an own object owns goes with it.
    """
    left = Counter(record.uid for record in after)
    gone = {record.uid: record for record in before if record.uid not in left}
    found = []
    for record in gone.values():
        if record.owner_uid in gone:
            continue
        source = record.annotations.get(SOURCE_ANNOTATION, "")
        if not source.startswith(f"{folder.rstrip('/')}/"):
            found.append(Violation("I9", str(record.key), f"was pruned, but comes from {source!r}"))
        elif record.key in kept:
            found.append(Violation("I9", str(record.key), "was pruned, but a file defines it"))
    return found


def payloads_are_those_of(expected: dict[str, str], found: dict[str, str]) -> list[Violation]:
    """I13: payload bytes do not depend on crashes or resumes.

    Both map an artifact to its content digest: of a run without faults, and of this one.
    """
    return [
        Violation("I13", name, f"holds {found.get(name, 'nothing')}, not {digest}")
        for name, digest in sorted(expected.items())
        if found.get(name) != digest
    ]


def _changed(before: ObjectRecord, after: ObjectRecord) -> bool:
    def shown(record: ObjectRecord) -> tuple[object, ...]:
        return (
            record.generation,
            record.spec,
            record.status,
            record.labels,
            record.annotations,
            record.finalizers,
            record.deletion_timestamp,
            record.wanted_digest,
        )

    return shown(before) != shown(after)


def _is_set_aside(store: ArtifactStore, artifact: ArtifactRecord) -> bool:
    return any(
        thing.kind == "quarantine" and thing.name.startswith(f"{artifact.digest}-")
        for thing in store.contents()
    )
