"""A folder as the source of truth: edits are applied, vanished files pruned, never too much."""

import pytest

from controller.folder_source import RESCAN_SECONDS, FolderSource
from specs.objects import PROTECT_ANNOTATION, Key
from tests.simulated import Simulation, canonical

MAPPING = """apiVersion: loopscope.dev/v1alpha1
kind: Mapping
metadata:
  name: {name}
  annotations: {{{annotations}}}
spec:
  coarseRef: {{name: coarse}}
  fineRef: {{name: fine}}
  minCosine: {cosine}
"""


class World:
    def __init__(self, path):
        self.simulation = Simulation(path / "state")
        self.folder = path / "specs"
        self.folder.mkdir()
        self.now = 0.0
        self.source = FolderSource(self.simulation.state, self.folder, path, lambda: None)

    def write(self, file, name=None, cosine=0.3, annotations=""):
        text = MAPPING.format(name=name or file[:-5], cosine=cosine, annotations=annotations)
        (self.folder / file).write_text(text)

    def scan(self):
        """Let the rescan become due; return what was applied, by name."""
        self.now += RESCAN_SECONDS
        applied = self.source.scan_if_due(self.now)
        return {item.key.name: item.outcome for item in applied}

    def names(self):
        return {record.key.name for record in self.simulation.objects()}


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_files_are_applied_once_and_edits_again(world):
    world.write("a.yaml")
    world.write("b.yaml")
    assert world.scan() == {"a": "created", "b": "created"}
    before = world.simulation.rows()
    assert world.scan() == {} and world.simulation.rows() == before
    world.write("a.yaml", cosine=0.4)
    assert world.scan() == {"a": "configured"}
    assert world.source.scan_if_due(world.now + 1) == [], "not before the rescan is due"


def test_a_vanished_file_is_pruned_and_nothing_that_came_another_way(world):
    spec = canonical("Mapping", {"coarseRef": {"name": "c"}, "fineRef": {"name": "f"}})
    world.simulation.apply(spec, "by-hand", "Mapping")
    world.write("a.yaml")
    world.write("b.yaml")
    world.scan()
    (world.folder / "a.yaml").unlink()
    world.scan()
    assert world.names() == {"b", "by-hand"}


def test_the_last_file_is_never_pruned(world):
    world.write("a.yaml")
    world.scan()
    (world.folder / "a.yaml").unlink()
    world.scan()
    assert world.names() == {"a"}
    world.folder.rmdir()
    world.scan()
    assert world.names() == {"a"}


def test_a_bad_file_leaves_the_last_good_version_and_prunes_nothing(world):
    for file in ("a.yaml", "b.yaml"):
        world.write(file)
    world.scan()
    (world.folder / "a.yaml").write_text("kind: Nothing\n")
    (world.folder / "b.yaml").unlink()
    world.scan()
    assert world.names() == {"a", "b"}
    assert world.simulation.event_reasons("a")[0] == "InvalidSpec"
    before = world.simulation.rows()
    world.scan()
    assert world.simulation.rows() == before, "said once"
    world.write("a.yaml", cosine=0.5)
    assert world.scan() == {"a": "configured"}
    assert world.names() == {"a"} and world.source.problems == []


def test_a_bad_file_does_not_keep_a_good_one_from_being_applied(world):
    (world.folder / "a.yaml").write_text("- no object\n")
    world.write("b.yaml")
    assert world.scan() == {"b": "created"}


def test_a_protected_object_is_kept_when_its_file_vanishes(world):
    world.write("a.yaml", annotations=f"{PROTECT_ANNOTATION}: 'true'")
    world.write("b.yaml")
    world.write("c.yaml")
    world.scan()
    (world.folder / "a.yaml").unlink()
    (world.folder / "c.yaml").unlink()
    world.scan()
    assert world.names() == {"a", "b"}


def test_an_object_in_two_files_is_refused_in_the_second_and_does_not_flip(world):
    world.write("a.yaml", name="same", cosine=0.4)
    world.write("b.yaml", name="same", cosine=0.5)
    assert world.scan() == {"same": "created"}
    for _ in range(2):
        assert world.scan() == {}
    assert world.simulation.get("same").spec["minCosine"] == 0.4
    (problem,) = world.source.problems
    assert problem.file.endswith("b.yaml") and "a.yaml" in problem.message


def test_a_file_that_names_someones_child_is_refused_and_the_rest_applied(world):
    world.simulation.apply()
    world.simulation.step()
    world.write("a.yaml", name="france-mapping")
    world.write("b.yaml")
    assert world.scan() == {"b": "created"}
    assert "france" in world.source.problems[0].message
    owned = Key("Mapping", "default", "france-mapping")
    assert world.simulation.get(owned.name).owner is not None
