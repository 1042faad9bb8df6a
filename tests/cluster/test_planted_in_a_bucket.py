"""The planted example with its artifacts in a bucket: the bytes of a run on disk, nothing lost."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from loopscope.state.artifact_place import COPIES, STORE
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.bucket import keys
from loopscope.state.artifacts.bucket.bucket_store import BucketStore
from loopscope.state.folder import artifacts_of, keep_database_at, open_state
from tests.integration.real import PATIENCE_SECONDS, REPOSITORY, Place, eventually, workers_of
from tests.s3_proxy import PASSING, Fault, proxied
from tests.s3_servers import S3Server, running_server

FIRST_SHARDS = 2
KILLS = 4
DOWN_SECONDS = 3.0


class Planted(Place):
    """A state folder for ``examples/planted``; with a URL, its artifacts lie there."""

    url: str | None = None

    @property
    def specs(self) -> Path:
        return REPOSITORY / "examples/planted"

    def words(self) -> tuple[str, ...]:
        named = ("--artifacts", self.url) if self.url else ()
        return (*named, "run", str(self.specs))

    def settle(self) -> None:
        code, output = self.call(*self.words())
        assert code == 0, output + self.worker_log()

    def contents(self) -> dict[str, str]:
        """Return the content digest of every artifact that the database knows."""
        state = open_state(self.state)
        with state.database.read() as connection:
            return {one.digest: one.content_digest for one in artifact_index.listed(connection)}


def planted(folder: Path, server: S3Server | None = None) -> Planted:
    folder.mkdir(exist_ok=True)
    place = Planted(folder)
    if server is not None:
        place.url = f"s3://{server.new_bucket()}/planted?endpoint={server.endpoint}"
    return place


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = planted(tmp_path_factory.mktemp("disk"))
    place.settle()
    return place.contents()


def sealed_in(place: Planted) -> set[str]:
    if not (place.state / STORE).exists():
        return set()
    store = artifacts_of(place.state)
    assert isinstance(store, BucketStore)
    return set(store.bucket.listed(keys.SHARDS))


def killed_once_it_sealed(place: Planted) -> set[str]:
    """Run, kill everything once some shards are sealed; return those that are left."""
    running = place.start(*place.words())
    sealed = eventually(
        lambda: (
            (len(found := sealed_in(place)) >= FIRST_SHARDS and found) or running.poll() is not None
        )
    )
    assert running.poll() is None, running.communicate()[0]
    running.send_signal(signal.SIGKILL)
    running.communicate()
    for worker in workers_of(place):
        worker.kill()
    left = sealed_in(place) & sealed
    assert left
    return left


def assert_sealed_once(server: S3Server, sealed: set[str]) -> None:
    """Look into the server's log: nobody made these shards again."""
    puts = server.requests("PUT")
    written = Counter(path.partition(f"/{keys.SHARDS}/")[2] for path in puts)
    names = {key.removeprefix(f"{keys.SHARDS}/") for key in sealed}
    assert {name: written[name] for name in names} == dict.fromkeys(names, 1)


def test_the_bytes_are_those_of_a_run_on_disk_also_when_it_is_killed_and_goes_on_elsewhere(
    localbucket, tmp_path, on_disk
):
    place = planted(tmp_path, localbucket)
    sealed = killed_once_it_sealed(place)
    shutil.rmtree(place.state / COPIES)  # as on another machine
    place.settle()
    assert place.contents() == on_disk
    assert sealed_in(place) == set()
    assert_sealed_once(localbucket, sealed)


def test_another_machine_with_the_same_database_goes_on_where_the_first_one_was_lost(
    postgres, localbucket, tmp_path, on_disk
):
    with running_server("localbucket") as server:  # its log holds the shards of this test alone
        database = postgres.new_database()
        first, second = planted(tmp_path / "first", server), planted(tmp_path / "second")
        keep_database_at(first.state, database)
        sealed = killed_once_it_sealed(first)
        keep_database_at(second.state, database)
        code, output = second.call("get", "experiments")
        assert code == 1 and "ArtifactsElsewhere" in output, output
        second.url = first.url
        second.settle()
        assert second.contents() == on_disk
        assert_sealed_once(server, sealed)


def test_nothing_is_left_over_and_a_second_run_starts_no_job(moto, tmp_path, on_disk):
    place = planted(tmp_path, moto)
    place.settle()
    assert place.contents() == on_disk
    count = len(place.jobs())
    place.settle()
    assert place.stages_since(count) == []
    code, output = place.call("fsck")
    assert code == 0 and "no findings" in output, output
    code, output = place.call("gc", "--grace", "0s")
    assert code == 0 and output.startswith("0 things"), output
    code, output = place.call("doctor")
    assert code == 0 and "artifacts are kept in s3://" in output, output


def test_it_settles_beside_faults_of_every_kind_and_a_server_that_is_killed(
    localbucket, tmp_path, on_disk, record_property
):
    """Ten requests of a hundred meet a fault, and four times nobody listens for a while."""
    chance = random.Random(1)

    def choose(method: str, path: str) -> Fault | None:
        return chance.choice(PASSING) if chance.random() < 0.1 else None

    with running_server("localbucket") as server, proxied(server.port, choose) as proxy:
        place = planted(tmp_path)
        place.url = f"s3://{server.new_bucket()}/planted?endpoint={proxy.endpoint}"
        running = place.start(*place.words())
        for _ in range(KILLS):
            begun = len(proxy.asked)
            eventually(
                lambda begun=begun: len(proxy.asked) > begun + 20 or running.poll() is not None
            )
            server.kill()
            time.sleep(DOWN_SECONDS)
            server.start()
        output, _ = running.communicate(timeout=PATIENCE_SECONDS)
        assert running.returncode == 0, output + place.worker_log()
        record_property("requests", len(proxy.asked))
        record_property("faults", dict(proxy.struck))
        assert sum(proxy.struck.values()) >= KILLS and len(proxy.struck) == len(PASSING)
        proxy.choose = lambda method, path: None
        assert place.contents() == on_disk
        _, output = place.call("fsck")
        assert "artifacts are whole" in output and "Corrupt" not in output, output
        quarantined = [
            one for one in artifacts_of(place.state).contents() if one.kind == "quarantine"
        ]
        assert quarantined == []
