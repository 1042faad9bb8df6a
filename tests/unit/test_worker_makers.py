"""Shards of one artifact come from one kind of processor or card, unless a mixture is allowed."""

import pytest

from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.worker import makers
from loopscope.worker.makers import MIXED, maker_of, makers_of, shards_of


@pytest.fixture
def kept(tmp_path):
    return ShardFolder(tmp_path / "work" / "digest")


@pytest.fixture
def on(monkeypatch):
    """Go on as on a node with another processor."""

    def node(processor):
        monkeypatch.setattr(makers, "processor_of", lambda device: processor)

    return node


def write(text):
    return lambda path: path.write_text(text)


def test_a_node_goes_on_with_shards_of_its_own_kind_and_not_with_those_of_another(kept, on):
    on("AVX2")
    shards_of(kept, "cpu", environment={}).seal("part", write("here"))
    on("AVX512")
    other = shards_of(kept, "cpu", environment={})
    assert other.sealed("part") is None
    other.seal("part", write("there"))
    assert other.sealed("part").read_text() == "there"
    on("AVX2")
    again = shards_of(kept, "cpu", environment={})
    assert again.sealed("part").read_text() == "here", "nothing of the first node is lost"
    assert makers_of(kept) == []


def test_another_version_of_torch_is_another_maker(on, monkeypatch):
    on("AVX2")
    before = maker_of("cpu")
    monkeypatch.setattr(makers.torch, "__version__", "9.9.9")
    assert maker_of("cpu") != before


def test_the_name_of_a_card_is_part_of_a_file_name(on):
    on("NVIDIA H200 / 141 GB: no. 1")
    assert maker_of("cuda:0").startswith("NVIDIA-H200-141-GB-no.-1-torch-")


def test_where_a_mixture_is_allowed_all_shards_are_gone_on_with_and_all_makers_named(kept, on):
    mixed = {MIXED: "1"}
    on("AVX2")
    shards_of(kept, "cpu", environment=mixed).seal("part", write("here"))
    on("AVX512")
    other = shards_of(kept, "cpu", environment=mixed)
    assert other.sealed("part").read_text() == "here"
    assert [name.split("-torch-")[0] for name in makers_of(kept)] == ["AVX2", "AVX512"]


@pytest.mark.parametrize("word", ["", "0", "yes"])
def test_only_1_allows_a_mixture(kept, on, word):
    on("AVX2")
    assert shards_of(kept, "cpu", environment={MIXED: word}).maker
