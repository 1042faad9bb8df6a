"""Reachability of artifacts: what is not reached may be collected."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from loopscope.specs.actions import CODE_REVISIONS
from loopscope.specs.keys import PIN_ANNOTATION, Key
from loopscope.state.artifacts.store import ArtifactStore, Corrupt
from loopscope.state.db import jobs, objects, tables
from loopscope.state.job_facts import references_in
from loopscope.state.records import ObjectRecord


@dataclass
class Reachability:
    """Follows references from objects and jobs through manifests.

    Manifests do not change, so each is read once.
    """

    artifacts: ArtifactStore
    keep_last: int = 0
    _upstream: dict[str, frozenset[str]] = field(default_factory=dict)

    def reachable(self, connection: Connection) -> set[str]:
        """Return the digests that must stay: what is wanted, what was made lately, and upstream.

        Raises OSError when a manifest cannot be read now: then nothing may be collected.
        """
        found: set[str] = set()
        waiting = self._roots(connection)
        while waiting:
            digest = waiting.pop()
            if digest not in found:
                found.add(digest)
                waiting |= self._made_from(digest)
        return found

    def _roots(self, connection: Connection) -> set[str]:
        records = objects.listed(connection)
        roots: set[str] = set()
        for record in records:
            roots |= set(references_in(record.status.inputs))
            roots |= {record.wanted_digest} if record.wanted_digest else set()
            roots |= {record.status.artifact.digest} if record.status.artifact else set()
        roots |= set(jobs.active_digests(connection).values()) | jobs.active_inputs(connection)
        return roots | self._history(connection, records)

    def _history(self, connection: Connection, records: Collection[ObjectRecord]) -> set[str]:
        """Return what was made for living objects lately, or ever for those that are pinned."""
        pinned = pinned_keys(records)
        if not pinned and not self.keep_last:
            return set()
        kept: dict[Key, list[str]] = defaultdict(list)
        living = {record.key for record in records}
        for key, digest in _made_for(connection):
            lately = len(kept[key]) < self.keep_last
            if key in living and digest not in kept[key] and (key in pinned or lately):
                kept[key].append(digest)
        return {digest for digests in kept.values() for digest in digests}

    def _made_from(self, digest: str) -> frozenset[str]:
        if digest not in self._upstream:
            stage = next((s for s in CODE_REVISIONS if self.artifacts.holds(s, digest)), None)
            if stage is None:
                return frozenset()  # not there yet, or in the trash; looked for again
            try:
                inputs = self.artifacts.manifest(stage, digest).get("inputs")
            except Corrupt:
                return frozenset()  # it will be made again from what its object names
            self._upstream[digest] = frozenset(references_in(inputs))
        return self._upstream[digest]


def pinned_keys(records: Collection[ObjectRecord]) -> set[Key]:
    """Return the objects whose artifacts all stay: those annotated so, and what they own."""
    by_uid = {record.uid: record for record in records}

    def is_pinned(record: ObjectRecord) -> bool:
        if record.annotations.get(PIN_ANNOTATION) == "true":
            return True
        owner = by_uid.get(record.owner_uid or "")
        return owner is not None and is_pinned(owner)

    return {record.key for record in records if is_pinned(record)}


def waited_for(connection: Connection) -> set[str]:
    """Return the digests that a job makes or an object waits for: their shards must stay."""
    return set(jobs.active_digests(connection).values()) | objects.wanted_digests(connection)


def _made_for(connection: Connection) -> Iterator[tuple[Key, str]]:
    """Yield which digest was made for which object, newest first; a share makes no artifact."""
    j = tables.jobs.c
    query = select(j.kind, j.namespace, j.name, j.digest).where(j.state == "succeeded")
    query = query.where(j.id.not_in(select(tables.shares.c.job_id)))
    for kind, namespace, name, digest in connection.execute(query.order_by(j.id.desc())):
        yield Key(kind, namespace, name), digest
