"""A seal never speaks for a shard that is not whole, and what is sealed survives a power cut."""

import json

import pytest

from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.state.files import file_sha256
from loopscope.worker.shards import Shards
from tests.moments import power_fails, somebody
from tests.simulated import Crash
from tests.simulation.faulty_disk import FaultyDisk

NAME = "capture-00000.safetensors"
PLACES = [
    *(("fsync", nth) for nth in range(1, 8)),
    *(("shard-write", 1), ("replace", 1), ("replace", 2), ("shard-sealed", 1)),
]


@pytest.fixture
def shards(tmp_path):
    return Shards(ShardFolder(tmp_path / "state" / "artifacts" / ".work" / "digest"))


def rows(path):
    path.write_bytes(b"rows")


def lied(shards):
    """Whether a seal stands beside bytes that are not those that it names."""
    seal = shards.kept.folder / f"{NAME}.seal.json"
    if not seal.exists():
        return False
    path = shards.kept.folder / NAME
    return not path.exists() or file_sha256(path) != json.loads(seal.read_text())["sha256"]


@pytest.mark.parametrize(("place", "nth"), PLACES)
def test_at_no_moment_of_sealing_does_a_seal_speak_for_what_is_not_there(shards, place, nth):
    seen = []
    with somebody(lambda: seen.append(lied(shards)), at=place, nth=nth):
        shards.seal(NAME, rows)
    assert seen == [False] and not lied(shards)


@pytest.mark.parametrize(("place", "nth"), PLACES)
@pytest.mark.parametrize("before", [None, b"other rows"])
def test_a_power_cut_while_sealing_leaves_the_shard_whole_or_absent(
    shards, tmp_path, place, nth, before
):
    if before is not None:
        shards.seal(NAME, lambda path: path.write_bytes(before))
    disk = FaultyDisk(tmp_path)
    with disk.watched():
        with somebody(power_fails, at=place, nth=nth) as cut, pytest.raises(Crash):
            Shards(ShardFolder(shards.kept.folder)).seal(NAME, rows)
        assert cut
        disk.cut_power(lambda: False)
    later = Shards(ShardFolder(shards.kept.folder))
    found = later.sealed(NAME)
    assert found is None or found.read_bytes() in (b"rows", before)
    assert later.seal(NAME, rows) == later.sealed(NAME)


@pytest.mark.parametrize("made", [False, True])
def test_a_sealed_shard_survives_a_power_cut_folders_and_all(shards, tmp_path, made):
    """Also when an earlier attempt made the folders and died before they were durable."""
    (tmp_path / "state").mkdir()
    disk = FaultyDisk(tmp_path)
    with disk.watched():
        if made:
            shards.kept.folder.mkdir(parents=True)
        shards.seal(NAME, rows)
        disk.cut_power(lambda: False)
    found = Shards(ShardFolder(shards.kept.folder)).sealed(NAME)
    assert found is not None and found.read_bytes() == b"rows"


def test_who_is_told_of_a_sealed_shard_finds_it_sealed(shards):
    told = []
    shards.on_sealed = lambda: told.append(
        Shards(ShardFolder(shards.kept.folder)).sealed(NAME) is not None
    )
    shards.seal(NAME, rows)
    assert told == [True]


def test_the_sealed_shards_are_listed_in_order_without_those_that_are_not(shards):
    names = [f"capture-{n:05}.safetensors" for n in range(30)]
    for name in names[::-1]:
        shards.seal(name, rows)
    (shards.kept.folder / "capture-00099.safetensors").write_bytes(b"not sealed")
    assert shards.kept.names() == names
