"""A bucket that several work on: who collects takes nothing from who publishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from loopscope.state import failpoints
from loopscope.state.artifacts.bucket import keys
from loopscope.state.artifacts.bucket.bucket_store import BucketStore
from loopscope.state.artifacts.bucket.client import Bucket
from loopscope.state.artifacts.bucket.copies import LocalCopies
from loopscope.state.artifacts.collection import RetentionPolicy, collect, take_stock
from loopscope.state.artifacts.reachability import Reachability
from loopscope.state.artifacts.store import Corrupt, Unreachable
from loopscope.state.records import ArtifactRecord
from tests.simulated import new_state

DIGEST = "d" * 64
FACTS = {"stage": "mapping", "digest": DIGEST, "metrics": {}, "createdAt": 5.0}


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(memory: MemoryStore, tmp_path: Path) -> BucketStore:
    bucket = Bucket(memory, memory, "s3://memory")
    bucket.create(keys.OWNER, b"{}")
    return BucketStore(bucket, LocalCopies(tmp_path / "copies"))


def sealed(store: BucketStore, token: int = 1) -> tuple[Path, ArtifactRecord]:
    staging = store.staging_folder(DIGEST, token)
    for name in ("table", "the same table"):
        (staging / name).write_bytes(b"rows")
    return staging, store.seal(staging, {**FACTS, "createdAt": float(token)})  # type: ignore[typeddict-item]


def published(store: BucketStore, token: int = 1) -> ArtifactRecord:
    staging, record = sealed(store, token)
    return store.publish(staging, record, store.prepare(staging, record))


def thrown_away(store: BucketStore) -> ArtifactRecord:
    record = published(store)
    (thing,) = store.contents()
    store.throw_away(thing, now=7.0)
    return record


def at(place: str, act: Callable[[], object]) -> Callable[[str], None]:
    """Return a handler of failpoints that acts once when it is reached."""
    left = [act]

    def handle(name: str) -> None:
        if name == place and left:
            left.pop()()

    return handle


def kinds(store: BucketStore) -> list[str]:
    return [thing.kind for thing in store.contents()]


def test_what_is_emptied_while_the_same_work_is_published_again_takes_nothing_of_it(store):
    thrown_away(store)
    made: list[ArtifactRecord] = []
    with failpoints.handled_by(at("trash-empty", lambda: made.append(published(store, 2)))):
        store.empty_trash(9.0)
    store.verify(made[0])
    store.discard_staging(keep_tokens=set())
    assert kinds(store) == ["artifact"]


def test_what_is_taken_back_while_the_trash_is_emptied_stays_whole(store):
    record = thrown_away(store)
    with failpoints.handled_by(at("trash-empty", lambda: store.take_back("mapping", DIGEST))):
        store.empty_trash(9.0)
    store.verify(record)
    assert kinds(store) == ["artifact"]


def test_what_is_emptied_while_it_is_taken_back_is_not_taken_back(store):
    thrown_away(store)
    with failpoints.handled_by(at("trash-take-back", lambda: store.empty_trash(9.0))):
        assert not store.take_back("mapping", DIGEST)
    assert kinds(store) == [] and store.bucket.listed().keys() == {keys.OWNER}


def test_the_upload_of_an_attempt_that_lost_its_job_goes_and_its_late_commit_gives_way(store):
    staging, late = sealed(store, 1)
    earlier = store.prepare(staging, late)
    store.discard_staging(keep_tokens={2})
    assert kinds(store) == []
    (staging / "table").parent.mkdir(parents=True, exist_ok=True)
    store.publish(staging, late, earlier)  # the database refused it, and nobody told the bucket
    with pytest.raises(Corrupt):
        store.check_presence(late)
    record = published(store, 2)
    store.verify(record)
    assert sorted(kinds(store)) == ["artifact", "quarantine"]


def test_an_attempt_that_holds_its_job_keeps_what_it_uploaded(store):
    staging, record = sealed(store, 3)
    earlier = store.prepare(staging, record)
    store.discard_staging(keep_tokens={3})
    names = {thing.name for thing in store.contents() if thing.kind == "staging"}
    assert names == {f"{DIGEST}-3"}, "as fsck names it"
    store.verify(store.publish(staging, record, earlier))


def test_equal_files_of_an_artifact_are_one_object(store):
    record = published(store)
    files = [key for key in store.bucket.listed("mapping") if not key.endswith("manifest.json")]
    assert len(files) == 1 and len(record.files) == 2
    folder = BucketStore(store.bucket, LocalCopies(store.disk / "elsewhere")).fetch(record)
    assert (folder / "table").read_bytes() == (folder / "the same table").read_bytes() == b"rows"


def test_the_shards_of_an_abandoned_job_are_shown_wait_in_the_trash_and_go(store, tmp_path):
    state = replace(new_state(tmp_path / "state"), artifacts=store)
    store.shards(DIGEST).seal("part", lambda part: part.write_bytes(b"piece"))
    reachability = Reachability(store)
    policy = RetentionPolicy(grace_seconds=0.0)
    stock = take_stock(state, reachability, policy, now=2e9)
    (shown,) = stock.unneeded
    assert (shown.kind, shown.name, shown.bytes) == ("shards", DIGEST, 5)
    collect(state, reachability, stock.unneeded, now=2e9)
    assert (
        kinds(store) == ["trash"] and take_stock(state, reachability, policy, 2e9).trash_bytes == 5
    )
    store.empty_trash(2e9)
    assert kinds(store) == []


def test_shards_in_the_trash_are_found_by_a_job_that_comes_again(store):
    store.shards(DIGEST).seal("part", lambda part: part.write_bytes(b"piece"))
    (thing,) = store.contents()
    store.throw_away(thing, now=7.0)
    again = BucketStore(store.bucket, LocalCopies(store.disk / "elsewhere")).shards(DIGEST)
    assert again.sealed("part") is not None
    again.seal("next", lambda part: part.write_bytes(b"piece"))
    store.empty_trash(9.0)
    assert again.names() == ["next", "part"]


def test_shards_that_a_job_takes_out_of_the_trash_while_it_is_emptied_stay(store):
    shards = store.shards(DIGEST)
    shards.seal("part", lambda part: part.write_bytes(b"piece"))
    store.throw_away(next(store.contents()), now=7.0)
    again = store.shards(DIGEST)

    def seal() -> None:
        again.seal("next", lambda part: part.write_bytes(b"piece"))

    with failpoints.handled_by(at("trash-empty", seal)):
        store.empty_trash(9.0)
    assert again.names() == ["next", "part"]


def test_a_copy_is_enough_while_the_bucket_gives_no_answer(store, monkeypatch):
    record = published(store)
    store.fetch_file(record, "table")
    down = replace(store, bucket=Silent(store.bucket.small, store.bucket.large, "s3://memory"))
    assert (down.fetch(record) / "table").read_bytes() == b"rows"
    assert down.fetch_file(record, "table").read_bytes() == b"rows"
    (down.fetch(record) / "table").write_bytes(b"rowz")
    with pytest.raises(Unreachable):
        down.fetch(record)
    assert (store.fetch(record) / "table").read_bytes() == b"rows"


class Silent(Bucket):
    def get(self, key: str) -> tuple[bytes, str] | None:
        raise Unreachable("planted")


def test_many_artifacts_are_looked_at_by_one_listing_and_the_doubtful_by_themselves(store):
    records = []
    for n in range(5):
        staging = store.staging_folder(f"{n:064}", 1)
        (staging / "table").write_bytes(f"{n}".encode())
        facts = {**FACTS, "digest": f"{n:064}"}
        record = store.seal(staging, facts)  # type: ignore[typeddict-item]
        records.append(store.publish(staging, record, store.prepare(staging, record)))
    assert store.fallen(records) == set()
    (thing,) = (one for one in store.contents() if one.name == records[1].digest)
    store.throw_away(thing, now=1.0)
    lost = next(k for k in store.bucket.listed(f"mapping/{records[2].digest}") if "json" not in k)
    store.bucket.delete([lost])
    assert store.fallen(records) == {records[1].digest, records[2].digest}
