"""Artifacts that lost their place: set aside, thrown away, taken back, removed.

Only names are moved, so each is quick enough for a transaction. The files of an attempt are removed
in one place alone, once nothing names it (``Moved.empty``).
"""

from __future__ import annotations

from dataclasses import dataclass

from loopscope.state import failpoints
from loopscope.state.artifacts.bucket import keys
from loopscope.state.artifacts.bucket.client import Bucket
from loopscope.state.artifacts.bucket.places import Commit, committed
from loopscope.state.artifacts.store import Stored


@dataclass(frozen=True)
class Moved:
    """The quarantine and the trash of a bucket."""

    bucket: Bucket

    def quarantine(self, stage: str, digest: str) -> bool:
        """Set what is published aside; False if there was nothing."""
        commit = committed(self.bucket, stage, digest)
        if commit is None:
            return False
        failpoints.reach("artifact-set-aside")
        self.keep_aside(stage, digest, commit)
        self.bucket.delete([keys.published(stage, digest)])
        return True

    def keep_aside(self, stage: str, digest: str, commit: Commit) -> None:
        """Name an attempt as one that was set aside, and as none that uploads."""
        aside = f"{keys.QUARANTINE}/{stage}/{digest}/{commit.attempt}"
        self.bucket.put(aside, commit.text())
        self.bucket.delete([keys.uploading(stage, digest, commit.attempt)])

    def set_aside(self, thing: Stored) -> None:
        """Move a foreign object to the quarantine."""
        self._move(thing.place, self._free(f"{keys.QUARANTINE}/{keys.FOREIGN}/{thing.name}"))

    def throw_away(self, thing: Stored, now: float) -> None:
        """Move something to the trash; twice is harmless."""
        failpoints.reach("trash-put")
        match thing.kind:
            case "artifact":
                self._throw_artifact_away(thing.group, thing.name, now)
            case "shards":
                self.bucket.put(f"{keys.TRASH}/{keys.SHARDS}/{thing.name}/{now!r}", b"")
            case _:
                self._move(thing.place, f"{keys.TRASH}/{thing.place}/{now!r}")

    def _throw_artifact_away(self, stage: str, digest: str, now: float) -> None:
        commit = committed(self.bucket, stage, digest)
        if commit is None:
            return
        before = list(self.bucket.listed(f"{keys.TRASH}/{stage}/{digest}"))
        thrown = f"{keys.TRASH}/{stage}/{digest}/{commit.attempt}/{now!r}"
        self.bucket.put(thrown, commit.text())
        for entry in before:
            self._doom(entry)
        uploading = keys.uploading(stage, digest, commit.attempt)
        self.bucket.delete([uploading])
        self.bucket.delete([keys.published(stage, digest)])

    def take_back(self, stage: str, digest: str) -> bool:
        """Let what was thrown away be the artifact again; False if there is none, or another."""
        thrown = self.bucket.listed(f"{keys.TRASH}/{stage}/{digest}")
        for entry in sorted(thrown, key=keys.since_in, reverse=True):
            attempt = entry.split("/")[3]
            found = self.bucket.get(entry)
            if found and self.bucket.entry(keys.manifest_of(stage, digest, attempt)) is not None:
                return self._take(stage, digest, entry, found[0])
        return False

    def _take(self, stage: str, digest: str, thrown: str, commit: bytes) -> bool:
        """Commit again; give it up when the trash is being emptied at this moment.

        Who empties forgets the entry first and then looks for the commit, so one sees the other.
        """
        failpoints.reach("trash-take-back")
        if not self.bucket.create(keys.published(stage, digest), commit):
            return False
        if self.bucket.entry(thrown) is None:
            self.bucket.delete([keys.published(stage, digest)])
            return False
        self.bucket.delete([thrown])
        return True

    # -- for good ----------------------------------------------------------------------------------

    def empty(self, until: float) -> None:
        """Remove for good what was thrown away at ``until`` or before."""
        for entry in self.bucket.listed(keys.TRASH):
            if keys.since_in(entry) <= until:
                failpoints.reach("trash-empty")
                self._doom(entry)
        for entry in self.bucket.listed(keys.EMPTYING):
            self._remove_doomed(entry)

    def remove_attempt(self, stage: str, digest: str, attempt: str) -> None:
        """Remove the files of an attempt, unless it is the artifact, and forget that it uploads."""
        commit = committed(self.bucket, stage, digest)
        if commit is None or commit.attempt != attempt:
            self.bucket.delete(self.bucket.listed(keys.files_of(stage, digest, attempt)))
        self.bucket.delete([keys.uploading(stage, digest, attempt)])

    def _doom(self, thrown: str) -> None:
        """Put something in the trash beyond reach. What it names is removed afterwards.

        Shards that a job has taken out of the trash meanwhile stay.
        """
        _, kind, *rest = thrown.split("/")
        if kind == keys.SHARDS:
            found = self.bucket.listed(keys.shards_of(rest[0]))
            if self.bucket.entry(thrown) is not None:
                self.bucket.delete(found)
        elif kind != keys.QUARANTINE:
            self.bucket.put(f"{keys.EMPTYING}/{kind}/{'/'.join(rest[:-1])}", b"")
        elif rest[0] != keys.FOREIGN:
            self.bucket.put(f"{keys.EMPTYING}/{'/'.join(rest[:-1])}", b"")
        self.bucket.delete([thrown])

    def _remove_doomed(self, entry: str) -> None:
        _, stage, digest, attempt = entry.split("/")
        self.remove_attempt(stage, digest, attempt)
        self.bucket.delete([entry])

    def _move(self, source: str, target: str) -> None:
        self.bucket.copy(source, target)
        if self.bucket.entry(target) is not None:
            self.bucket.delete([source])

    def _free(self, wanted: str) -> str:
        there = self.bucket.listed(wanted.rpartition("/")[0])
        names = (wanted, *(f"{wanted}-{n}" for n in range(1, 10_000)))
        return next(name for name in names if name not in there)
