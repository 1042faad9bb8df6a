"""What networks and servers do to a bucket: never taken for damage, and nothing is lost by it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from loopscope.state.artifacts.bucket import address, client, keys
from loopscope.state.artifacts.bucket.address import address_of, bucket_at
from loopscope.state.artifacts.bucket.bucket_store import BucketStore
from loopscope.state.artifacts.bucket.client import PIECE_BYTES, Bucket
from loopscope.state.artifacts.bucket.copies import LocalCopies
from loopscope.state.artifacts.collection import RetentionPolicy, collect, take_stock
from loopscope.state.artifacts.reachability import Reachability
from loopscope.state.artifacts.store import Corrupt, Unreachable
from loopscope.state.records import ArtifactRecord
from tests.s3_proxy import PASSING, Fault, Proxy, proxied
from tests.s3_servers import S3Server
from tests.simulated import Simulation, new_state

DIGEST = "d" * 64
FACTS = {"stage": "mapping", "digest": DIGEST, "metrics": {"n": 1}, "createdAt": 5.0}
LASTING: tuple[Fault, ...] = ("refused", "server error", "clock too far off", "no right")
FAULTS_MIN = 20
DONE = ("answer lost", "cut on its way down")
"""The server has done what it was asked."""


@dataclass
class Place:
    """A bucket behind a proxy, and stores on it."""

    proxy: Proxy
    server: S3Server
    name: str
    folder: Path
    stores: int = 0

    def bucket(self, endpoint: str) -> Bucket:
        bucket = bucket_at(address_of(f"s3://{self.name}/p?endpoint={endpoint}"))
        bucket.create(keys.OWNER, b"{}")
        return bucket

    def store(self) -> BucketStore:
        """Return the store of another machine each time."""
        self.stores += 1
        bucket = self.bucket(self.proxy.endpoint)
        return BucketStore(bucket, LocalCopies(self.folder / f"copies-{self.stores}"))

    def strike(self, fault: Fault | None, times: int = 10**9, what: str = "") -> None:
        """Let the next so many requests for ``what`` meet a fault."""
        self.proxy.choose = Striking(fault, times, what)


@dataclass
class Striking:
    fault: Fault | None
    times: int
    what: str

    def __call__(self, method: str, path: str) -> Fault | None:
        if self.times <= 0 or not re.search(self.what, f"{method} {path}"):
            return None
        self.times -= 1
        return self.fault


@pytest.fixture
def place(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(client, "DOWN_SECONDS", 0.0)
    monkeypatch.setattr(address, "RETRIES_MAX", 3)  # 0.7 s
    with proxied(s3.port) as proxy:
        yield Place(proxy, s3, s3.new_bucket(), tmp_path)


def sealed(
    store: BucketStore, token: int = 1, payload: bytes = b"rows", **told: object
) -> tuple[Path, ArtifactRecord]:
    staging = store.staging_folder(DIGEST, token)
    (staging / "table").write_bytes(payload)
    return staging, store.seal(staging, {**FACTS, **told})  # type: ignore[typeddict-item]


def published(store: BucketStore, payload: bytes = b"rows") -> ArtifactRecord:
    staging, record = sealed(store, payload=payload)
    return store.publish(staging, record, store.prepare(staging, record))


USES: dict[str, Callable[[BucketStore, ArtifactRecord], object]] = {
    "record": lambda store, record: store.record("mapping", DIGEST),
    "check_presence": lambda store, record: store.check_presence(record),
    "verify": lambda store, record: store.verify(record),
    "verifying": lambda store, record: list(store.verifying(record)),
    "whole": lambda store, record: store.whole("mapping", DIGEST),
    "signature": lambda store, record: store.signature(record),
    "holds": lambda store, record: store.holds("mapping", DIGEST),
    "published": lambda store, record: store.published("mapping"),
    "fallen": lambda store, record: store.fallen([record]),
    "fetch": lambda store, record: store.fetch(record),
    "fetch_file": lambda store, record: store.fetch_file(record, "table"),
    "contents": lambda store, record: list(store.contents()),
    "take_back": lambda store, record: store.take_back("mapping", "e" * 64),
    "quarantine": lambda store, record: store.quarantine("mapping", "e" * 64),
    "discard_staging": lambda store, record: store.discard_staging(set()),
    "worked_on": lambda store, record: store.worked_on(),
    "sealed": lambda store, record: store.shards("e" * 64).sealed("part"),
    "names": lambda store, record: store.shards("e" * 64).names(),
}


@pytest.mark.parametrize("fault", LASTING)
def test_what_is_no_answer_is_never_taken_for_damage(place, fault):
    record = published(place.store())
    for name, use in USES.items():
        store = place.store()
        place.strike(fault)
        with pytest.raises(Unreachable) as said:
            use(store, record)
        assert place.name in str(said.value), name
        place.strike(None)
    assert "set the clock" in str(said.value) or fault != "clock too far off"
    place.store().verify(record)
    assert [thing.kind for thing in place.store().contents()] == ["artifact"]


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_not_noticed(place, fault):
    record = published(place.store())
    for use in USES.values():
        store = place.store()
        place.strike(fault, times=2)
        use(store, record)
        place.strike(None)
    assert place.proxy.struck[fault] >= len(USES)


def test_a_bucket_that_is_gone_is_no_damage(place, monkeypatch):
    monkeypatch.setattr(client, "THERE_SECONDS", 0.0)
    record = published(place.store())
    store = place.store()
    other = replace(store, bucket=replace(store.bucket, prefix="elsewhere"))
    store.bucket.small = store.bucket.large = bucket_at(
        address_of(f"s3://no-{place.name}/p?endpoint={place.proxy.endpoint}")
    ).small
    for gone in (store, other):
        for name in ("record", "check_presence", "verify", "holds", "fetch", "sealed"):
            with pytest.raises(Unreachable):
                USES[name](gone, record)


@pytest.mark.parametrize("fault", [*PASSING, *LASTING])
@pytest.mark.parametrize("what", ["PUT .*/uploading/", "PUT .*manifest", "PUT .*/[0-9a-f]{64}$"])
def test_an_upload_that_fails_is_made_again_by_the_next_attempt(place, fault, what):
    store = place.store()
    staging, record = sealed(store)
    place.strike(fault, what=what)
    with pytest.raises(Unreachable):
        store.prepare(staging, record)
    assert place.proxy.struck[fault]
    place.strike(None)
    assert not store.holds("mapping", DIGEST)
    again, made = sealed(store, token=2, createdAt=6.0)
    store.publish(again, made, store.prepare(again, made))
    store.discard_staging(keep_tokens=set())
    place.store().verify(made)
    assert [thing.kind for thing in store.contents()] == ["artifact"]


def test_a_large_upload_that_is_cut_off_is_never_published_in_part(place):
    payload = b"row" * PIECE_BYTES
    store = place.store()
    staging, record = sealed(store, payload=payload)
    place.strike("cut on its way up", times=3, what="PUT .*partNumber")
    store.publish(staging, record, store.prepare(staging, record))
    assert place.proxy.struck["cut on its way up"] == 3
    assert (place.store().fetch(record) / "table").read_bytes() == payload


def test_a_commit_whose_answer_is_lost_is_ours(place):
    store = place.store()
    staging, record = sealed(store)
    earlier = store.prepare(staging, record)
    place.strike("answer lost", times=1, what="PUT .*/published/")
    assert store.publish(staging, record, earlier) == record
    assert place.proxy.struck["answer lost"] == 1
    store.verify(record)
    assert [thing.kind for thing in store.contents()] == ["artifact"]


def test_a_commit_that_nobody_answers_is_taken_over_or_made_again(place):
    store = place.store()
    staging, record = sealed(store)
    earlier = store.prepare(staging, record)
    place.strike("answer lost", what="PUT .*/published/")
    with pytest.raises(Unreachable):
        store.publish(staging, record, earlier)
    place.strike(None)
    assert place.store().whole("mapping", DIGEST) == record, "the next plan adopts it"
    again, made = sealed(store, token=2, createdAt=6.0)
    assert store.publish(again, made, store.prepare(again, made)) == record


def test_the_later_of_two_that_publish_changes_nothing(place):
    one, two = place.store(), place.store()
    staging, record = sealed(one)
    late, old = sealed(two, token=0, createdAt=6.0)
    seen = [store.prepare(*at) for store, at in ((one, (staging, record)), (two, (late, old)))]
    one.publish(staging, record, seen[0])
    with pytest.raises(OSError, match="by another attempt meanwhile"):
        two.publish(late, old, seen[1])
    assert place.store().record("mapping", DIGEST) == record
    place.store().verify(record)
    one.discard_staging(keep_tokens=set())
    assert [thing.kind for thing in one.contents()] == ["artifact"]


def test_a_byte_that_is_harmed_on_its_way_down_is_read_again(place):
    record = published(place.store(), payload=b"row" * PIECE_BYTES)
    place.strike("harmed on its way down", times=1, what=f"GET .*/{DIGEST}/1-.*/[0-9a-f]{{64}}$")
    folder = place.store().fetch(record)
    assert place.proxy.struck["harmed on its way down"] == 1
    assert (folder / "table").read_bytes() == b"row" * PIECE_BYTES


def test_a_byte_that_was_harmed_on_its_way_up_is_found_by_everybody_once_one_has_read_it(place):
    store = place.store()
    staging, record = sealed(store)
    place.strike("harmed on its way up", times=1, what="PUT .*/[0-9a-f]{64}$")
    store.publish(staging, record, store.prepare(staging, record))
    place.strike(None)
    with pytest.raises(Corrupt, match="sha256 differs"):
        place.store().fetch(record)
    with pytest.raises(Corrupt, match="sha256 differs"):
        list(place.store().verifying(record))


@pytest.mark.parametrize("fault", [*PASSING, *LASTING])
def test_a_shard_counts_once_the_bucket_holds_it(place, fault):
    shards = place.store().shards(DIGEST)
    place.strike(fault, what="PUT .*/shards/")
    with pytest.raises(Unreachable):
        shards.seal("part", lambda part: part.write_bytes(b"piece"))
    place.strike(None)
    found = place.store().shards(DIGEST).sealed("part")
    assert (found is not None) == (fault in DONE)
    shards.seal("part", lambda part: part.write_bytes(b"piece"))
    found = place.store().shards(DIGEST).sealed("part")
    assert found is not None and found.read_bytes() == b"piece"


@pytest.mark.parametrize("year", ["1999", "2199"])
def test_a_server_whose_clock_is_wrong_loses_nothing_that_is_needed(place, year):
    state = replace(new_state(place.folder / "state"), artifacts=place.store())
    state.artifacts.shards(DIGEST).seal("part", lambda part: part.write_bytes(b"piece"))
    place.proxy.change = lambda body: re.sub(rb"(?<=<LastModified>)\d{4}", year.encode(), body)
    reachability = Reachability(state.artifacts)
    stock = take_stock(state, reachability, RetentionPolicy(grace_seconds=3600.0), now=2e9)
    assert bool(stock.unneeded) == (year == "1999")
    collect(state, reachability, stock.unneeded, now=2e9)
    found = state.artifacts.shards(DIGEST).sealed("part")
    assert found is not None, "the trash still has it, and a job that comes again finds it"


@pytest.mark.parametrize("seed", range(4))
def test_an_experiment_settles_beside_all_of_them_and_its_artifacts_are_whole(place, seed):
    chance = random.Random(seed)

    def choose(method: str, path: str) -> Fault | None:
        return chance.choice(PASSING) if chance.random() < 0.1 else None

    world = Simulation(place.folder / "state")
    store = place.store()
    store.bucket.clock = world.clock.elapsed
    world.state = world.workers.state = replace(world.state, artifacts=store)
    world.restart()
    world.apply()
    place.proxy.choose = choose
    assert len(world.settle()) == 6
    place.proxy.choose = lambda method, path: None
    assert world.resync() == []
    assert sum(place.proxy.struck.values()) >= FAULTS_MIN
    kinds = [thing.kind for thing in store.contents()]
    assert kinds == ["artifact"] * 6
