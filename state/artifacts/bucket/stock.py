"""All that lies in a bucket, as things: from one listing, and few questions beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from loopscope.specs.actions import CODE_REVISIONS
from loopscope.state.artifacts.bucket import keys
from loopscope.state.artifacts.bucket.client import Bucket, Entry
from loopscope.state.artifacts.bucket.places import committed
from loopscope.state.artifacts.store import Stored, StoredKind


class Attempt(NamedTuple):
    """The name of an attempt."""

    stage: str
    digest: str
    name: str


@dataclass
class _Sorted:
    """The objects of a bucket by what they say."""

    published: dict[tuple[str, str], Entry] = field(default_factory=dict)
    attempts: dict[Attempt, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    uploading: dict[Attempt, Entry] = field(default_factory=dict)
    aside: dict[str, Entry] = field(default_factory=dict)
    """What stands in the quarantine, and below in the trash, by its whole name."""
    thrown: dict[str, Entry] = field(default_factory=dict)
    doomed: set[Attempt] = field(default_factory=set)
    shards: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    foreign: dict[str, Entry] = field(default_factory=dict)

    def take(self, key: str, entry: Entry) -> None:
        """Sort one object in."""
        match key.split("/"):
            case [keys.PUBLISHED, stage, digest]:
                self.published[stage, digest] = entry
            case [keys.UPLOADING, stage, digest, attempt]:
                self.uploading[Attempt(stage, digest, attempt)] = entry
            case [keys.QUARANTINE, _, *_]:
                self.aside[key] = entry
            case [keys.TRASH, _, *_]:
                self.thrown[key] = entry
            case [keys.EMPTYING, stage, digest, attempt]:
                self.doomed.add(Attempt(stage, digest, attempt))
            case [keys.SHARDS, digest, _, _]:
                self.shards[digest].append(entry)
            case [stage, digest, attempt, _] if stage in CODE_REVISIONS and keys.is_attempt(
                attempt
            ):
                self.attempts[Attempt(stage, digest, attempt)].append(entry)
            case [keys.OWNER]:
                pass
            case _:
                self.foreign[key] = entry


def stock_of(bucket: Bucket) -> Iterator[Stored]:
    """Yield all that lies in a bucket: artifacts and foreign things by place, then the rest."""
    found = _Sorted()
    for key, entry in bucket.listed().items():
        found.take(key, entry)
    claimed = {_attempt_in(key) for key in (*found.aside, *found.thrown)} | found.doomed
    claimed |= found.uploading.keys()
    for attempt in found.uploading:
        if _is_published(bucket, attempt, found):
            claimed.discard(attempt)
    yield from sorted(_artifacts_and_foreign(found, claimed), key=lambda thing: thing.place)
    hidden = {key.split("/")[2] for key in found.thrown if key.split("/")[1] == keys.SHARDS}
    for digest, entries in sorted(found.shards.items()):
        if digest not in hidden:
            yield _thing("shards", "", digest, keys.shards_of(digest), entries)
    yield from _staging(found, claimed)
    for key, entry in sorted(found.aside.items()):
        files = found.attempts.get(_attempt_in(key), [])
        _, group, *rest = key.split("/")
        yield _thing("quarantine", group, "-".join(rest), key, [entry, *files], entry.since)
    for key, entry in sorted(found.thrown.items()):
        yield _thrown(key, entry, found)


def _artifacts_and_foreign(found: _Sorted, claimed: set[Attempt]) -> Iterator[Stored]:
    files: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for attempt, entries in found.attempts.items():
        if attempt not in claimed:
            files[attempt.stage, attempt.digest].extend(entries)
    for (stage, digest), entry in found.published.items():
        there = files[stage, digest]
        yield _thing("artifact", stage, digest, f"{stage}/{digest}", there, entry.since)
    for key, entry in found.foreign.items():
        if tuple(key.split("/")[:2]) not in found.published:  # else it is seen with its artifact
            yield _thing("foreign", "", key.rpartition("/")[2], key, [entry])


def _staging(found: _Sorted, claimed: set[Attempt]) -> Iterator[Stored]:
    """Yield attempts that upload or did so, and those that nothing names any more."""
    for attempt in sorted(found.uploading.keys() | found.attempts.keys()):
        of_artifact = (attempt.stage, attempt.digest) in found.published
        if attempt in found.uploading and attempt not in claimed:
            continue
        if attempt not in found.uploading and (attempt in claimed or of_artifact):
            continue
        name = f"{attempt.digest}-{keys.token_of(attempt.name)}"
        entries = [*found.attempts[attempt], found.uploading.get(attempt, Entry(0, "", 0.0))]
        yield _thing("staging", "", name, keys.files_of(*attempt), entries)


def _is_published(bucket: Bucket, attempt: Attempt, found: _Sorted) -> bool:
    if (attempt.stage, attempt.digest) not in found.published:
        return False
    commit = committed(bucket, attempt.stage, attempt.digest)
    return commit is not None and commit.attempt == attempt.name


def _thrown(key: str, entry: Entry, found: _Sorted) -> Stored:
    _, kind, *rest, _ = key.split("/")
    since = keys.since_in(key)
    if kind == keys.SHARDS:
        return _thing("trash", kind, rest[0], key, found.shards.get(rest[0], []), since)
    files = found.attempts.get(_attempt_in(key), [])
    name = "-".join(rest) if kind == keys.QUARANTINE else rest[0]
    return _thing("trash", kind, name, key, [entry, *files], since)


def _attempt_in(key: str) -> Attempt:
    """Return the attempt that an entry of the quarantine or the trash names; else one of none."""
    parts = [part for part in key.split("/") if part not in (keys.TRASH, keys.QUARANTINE)]
    return Attempt(*parts[:3]) if len(parts) >= 3 else Attempt("", "", "")


def _thing(
    kind: StoredKind,
    group: str,
    name: str,
    place: str,
    entries: list[Entry],
    since: float | None = None,
) -> Stored:
    newest = max((entry.since for entry in entries), default=0.0) if since is None else since
    return Stored(kind, group, name, place, sum(entry.bytes for entry in entries), newest)
