"""A shard with an intact seal is complete; anything else is as good as absent."""

import pytest

from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.worker.shards import Shards

NAME = "capture-00000.safetensors"


@pytest.fixture
def shards(tmp_path):
    return Shards(ShardFolder(tmp_path / "work" / "digest"))


def write(data):
    return lambda path: path.write_bytes(data)


def test_a_sealed_shard_is_found_again_by_a_later_attempt(shards):
    path = shards.seal(NAME, write(b"rows"))
    assert path.read_bytes() == b"rows"
    assert Shards(ShardFolder(shards.kept.folder)).sealed(NAME) == path


def test_between_two_shards_who_asks_is_heard_but_not_before_one_was_sealed(shards):
    heard = []
    shards.before_next = lambda: heard.append("asked")
    assert shards.sealed("a") is None and heard == [], "each try gets on by a shard"
    shards.seal("a", write(b"rows"))
    assert heard == []
    assert shards.sealed("a") is not None and heard == [], "what is there takes no time"
    assert shards.sealed("b") is None and heard == ["asked"]


def test_a_later_try_seals_a_shard_of_its_own_before_it_makes_room(shards):
    shards.seal("a", write(b"rows"))
    later, heard = Shards(ShardFolder(shards.kept.folder)), []
    later.before_next = lambda: heard.append("asked")
    assert later.sealed("a") is not None and later.sealed("b") is None and heard == []
    later.seal("b", write(b"rows"))
    assert later.sealed("c") is None and heard == ["asked"]


def test_a_shard_that_was_never_sealed_is_absent(shards):
    assert shards.sealed(NAME) is None
    shards.kept.folder.mkdir(parents=True)
    (shards.kept.folder / NAME).write_bytes(b"rows")
    assert shards.sealed(NAME) is None


@pytest.mark.parametrize("harm", [b"row", b"rowz", b"rows.", b""])
def test_a_harmed_shard_is_absent_and_can_be_sealed_again(shards, harm):
    path = shards.seal(NAME, write(b"rows"))
    path.write_bytes(harm)
    assert shards.sealed(NAME) is None
    assert shards.seal(NAME, write(b"rows")).read_bytes() == b"rows"
    assert shards.sealed(NAME) == path


@pytest.mark.parametrize("seal", [b"", b"[]", b"{}", b'{"bytes": 4}', b"\xff", b"null"])
def test_a_harmed_seal_makes_its_shard_absent(shards, seal):
    shards.seal(NAME, write(b"rows"))
    (shards.kept.folder / f"{NAME}.seal.json").write_bytes(seal)
    assert shards.sealed(NAME) is None


def test_a_crash_while_writing_leaves_no_shard(shards):
    def half(path):
        path.write_bytes(b"ro")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shards.seal(NAME, half)
    assert shards.sealed(NAME) is None
    assert not (shards.kept.folder / NAME).exists()


def test_sealing_twice_keeps_the_newer_bytes(shards):
    shards.seal(NAME, write(b"old"))
    shards.seal(NAME, write(b"newer"))
    path = shards.sealed(NAME)
    assert path is not None and path.read_bytes() == b"newer"


def test_shards_do_not_disturb_one_another(shards):
    first, second = shards.seal("a", write(b"1")), shards.seal("b", write(b"2"))
    second.unlink()
    assert shards.sealed("a") == first and shards.sealed("b") is None
    assert sorted(path.name for path in shards.kept.folder.iterdir()) == [
        "a", "a.seal.json", "b.seal.json",
    ]  # fmt: skip
