"""A folder as the source of truth: edits are applied, vanished files pruned, never too much."""

import shutil
import threading
import time

import pytest

from loopscope.controller.sources import folder_watch
from loopscope.controller.sources.folder_source import (
    RESCAN_SECONDS,
    SECOND_LOOK_SECONDS,
    FolderSource,
)
from loopscope.controller.sources.folder_watch import FolderWatch
from loopscope.specs.keys import PROTECT_ANNOTATION, Key
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
        self.source = FolderSource(
            self.simulation.state, self.folder, path, lambda: None, self.simulation.clock
        )

    def write(self, file, name=None, cosine=0.3, annotations=""):
        text = MAPPING.format(name=name or file[:-5], cosine=cosine, annotations=annotations)
        (self.folder / file).write_text(text)

    def scan(self):
        """Let the rescan become due; return what was applied, by name."""
        self.simulation.clock.advance(RESCAN_SECONDS)
        applied = self.source.scan_if_due()
        self.simulation.clock.advance(SECOND_LOOK_SECONDS)  # at what is missing, if anything is
        applied += self.source.scan_if_due()
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
    assert world.source.scan_if_due() == [], "not before the rescan is due"


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
    assert "Warning" in next(e for e in world.simulation.rows()["events"] if "InvalidSpec" in e)
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
    (problem,) = world.source.problems
    assert "france" in problem.message
    assert str(problem) == f"{world.folder / 'a.yaml'}: {problem.message}"
    owned = Key("Mapping", "default", "france-mapping")
    assert world.simulation.get(owned.name).owner is not None


# -- an empty folder may be a disk that is not mounted ---------------------------------------


@pytest.fixture
def world_with_a_mount(world):
    """Three specs, one of them on a disk that is mounted below the folder."""
    (world.folder / "disk").mkdir()
    world.write("a.yaml")
    world.write("b.yaml")
    world.write("disk/c.yaml", name="c")
    world.write("disk/d.yaml", name="d")
    world.scan()
    assert world.names() == {"a", "b", "c", "d"}
    return world


def unmount(folder):
    """Leave what an unmount leaves: the empty mount point."""
    shutil.rmtree(folder)
    folder.mkdir()


def test_an_unmounted_folder_deletes_nothing_and_nothing_happens_when_it_is_back(
    world_with_a_mount, tmp_path
):
    world = world_with_a_mount
    shutil.copytree(world.folder, tmp_path / "kept")
    unmount(world.folder)
    before = world.simulation.rows()
    assert world.scan() == {} and world.simulation.rows() == before
    shutil.copytree(tmp_path / "kept", world.folder, dirs_exist_ok=True)
    assert world.scan() == {} and world.simulation.rows() == before


@pytest.mark.parametrize("vanish", [unmount, shutil.rmtree], ids=["unmounted", "removed"])
def test_a_part_of_the_folder_that_vanishes_as_a_whole_deletes_nothing_and_says_so_once(
    world_with_a_mount, vanish
):
    world = world_with_a_mount
    vanish(world.folder / "disk")
    world.scan()
    assert world.names() == {"a", "b", "c", "d"}
    assert world.simulation.event_reasons("c") == ["SpecVanished"]
    before = world.simulation.rows()
    world.scan()
    assert world.simulation.rows() == before, "said once"


def test_one_file_less_in_a_folder_that_holds_others_is_a_deletion(world_with_a_mount):
    world = world_with_a_mount
    (world.folder / "disk" / "c.yaml").unlink()
    world.scan()
    assert world.names() == {"a", "b", "d"}


def test_a_folder_that_cannot_be_read_deletes_nothing_and_does_not_end_the_controller(
    world_with_a_mount, monkeypatch
):
    world = world_with_a_mount

    def stale(_path):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr("loopscope.controller.sources.folder_source.files_below", stale)
    assert world.scan() == {}
    assert world.names() == {"a", "b", "c", "d"}


def test_a_file_that_is_empty_while_it_is_being_saved_deletes_nothing(world):
    world.write("a.yaml")
    world.write("b.yaml")
    world.scan()
    (world.folder / "a.yaml").write_text("")
    world.scan()
    assert world.names() == {"a", "b"}
    world.write("a.yaml", cosine=0.5)
    assert world.scan() == {"a": "configured"}


def test_an_object_that_is_taken_out_of_a_file_with_others_is_deleted(world):
    world.write("a.yaml")
    first = (world.folder / "a.yaml").read_text()
    (world.folder / "a.yaml").write_text(first + "---\n" + first.replace("name: a", "name: b"))
    world.scan()
    assert world.names() == {"a", "b"}
    (world.folder / "a.yaml").write_text(first)
    world.scan()
    assert world.names() == {"a"}


def test_a_spec_that_moves_to_another_folder_is_the_same_object(world_with_a_mount):
    world = world_with_a_mount
    before = world.simulation.get("c").uid
    (world.folder / "disk" / "c.yaml").rename(world.folder / "c.yaml")
    world.scan()
    assert world.simulation.get("c").uid == before
    assert "SpecVanished" not in world.simulation.event_reasons("c")


# -- a file that is refused ---------------------------------------------------------------------


def source_valid(world, name):
    return world.simulation.get(name).status.condition("SourceValid")


def test_a_refused_file_is_a_condition_of_its_own_objects_and_the_others_go_on(world):
    world.write("a.yaml")
    world.write("b.yaml")
    world.scan()
    world.simulation.step()
    (world.folder / "a.yaml").write_text("kind: [")
    world.write("b.yaml", cosine=0.4)
    assert world.scan() == {"b": "configured"}
    world.simulation.step()
    told = source_valid(world, "a")
    assert (told.status, told.reason) == ("False", "InvalidSpec")
    assert "a.yaml:2:1: not valid YAML" in told.message and source_valid(world, "b") is None
    record = world.simulation.get("a")
    assert (record.generation, record.spec["minCosine"]) == (1, 0.3)
    before = world.simulation.rows()
    assert world.scan() == {} and world.simulation.rows() == before


def test_the_condition_goes_when_the_file_is_right_again(world):
    world.write("a.yaml")
    world.scan()
    (world.folder / "a.yaml").write_text("kind: [")
    world.scan()
    world.simulation.step()
    world.write("a.yaml")
    world.scan()
    world.simulation.step()
    assert source_valid(world, "a") is None and world.simulation.get("a").generation == 1


def test_get_says_that_a_file_is_refused(world, loopscope):
    world.write("a.yaml")
    world.scan()
    (world.folder / "a.yaml").write_text("kind: [")
    world.scan()
    world.simulation.step()
    code, out, err = loopscope("get", "mappings")
    assert code == 0 and "a " in out and "mapping/a: its file is refused: " in err
    assert "SourceValid" in loopscope("describe", "mapping", "a")[1]


# -- watching ------------------------------------------------------------------------------------


@pytest.fixture
def watch(tmp_path):
    """A watch that counts what it notices; ended after the test."""
    noticed = threading.Semaphore(0)
    made = FolderWatch(lambda _: noticed.release(), tmp_path / "state", recursive=True)
    made.noticed = noticed
    yield made
    made.stop()


def test_a_change_is_noticed_also_when_a_file_is_replaced(watch, tmp_path):
    (tmp_path / "a.yaml").write_text("1")
    watch.watch({tmp_path})
    watch.start()
    for number in range(2):
        time.sleep(0.5)  # the watch begins at some time
        (tmp_path / "new").write_text(str(number))
        (tmp_path / "new").replace(tmp_path / "a.yaml")
        assert watch.noticed.acquire(timeout=60)


def test_a_watch_that_fails_is_taken_up_again_and_everything_looked_at(
    watch, tmp_path, monkeypatch
):
    real, calls = folder_watch.watchfiles.watch, []

    def faulty(*paths, **options):
        calls.append(paths)
        if len(calls) == 1:
            raise OSError(28, "inotify watches are used up")
        return real(*paths, **options)

    monkeypatch.setattr(folder_watch.watchfiles, "watch", faulty)
    monkeypatch.setattr(folder_watch, "AGAIN_SECONDS", 0.01)
    watch.watch({tmp_path})
    watch.start()
    assert watch.noticed.acquire(timeout=60), "a full scan follows the fault"
    while len(calls) < 2:
        time.sleep(0.01)


def test_folders_can_be_added_while_watching(watch, tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    first.mkdir()
    second.mkdir()
    watch.watch({first})
    watch.start()
    watch.watch({first, second})
    deadline = time.monotonic() + 60
    while not watch.noticed.acquire(timeout=0.3):
        (second / "x").write_text(str(time.monotonic()))
        assert time.monotonic() < deadline


def test_whoever_is_woken_by_an_edit_finds_what_was_edited(world):
    found = []
    world.source.wake = lambda: found.append(world.source._changed.take())
    world.source._notice({world.folder / "a.yaml"})
    assert found == [{world.folder / "a.yaml"}]
