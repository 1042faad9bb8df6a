"""An edit in a watched folder makes that file be read, and what depends on it; nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopscope.controller.sources import folder_source
from loopscope.controller.sources.folder_files import (
    ChangedPaths,
    FileContent,
    folders_of_weights,
    still_known,
)
from loopscope.specs.keys import Key
from tests.unit.test_controller_folder_source import World

A, B = Path("/specs/a.yaml"), Path("/specs/b.yaml")


def content(name, *named):
    return FileContent((Key("Mapping", "default", name),), named)


KNOWN = {A: content("a", ("file", "/texts/a.txt")), B: content("b", ("path", "/weights/sae"))}


def test_an_edited_file_is_read_and_the_others_stand():
    assert still_known([A, B], KNOWN, {A}) == {B: KNOWN[B]}


def test_a_new_file_is_read_and_the_others_stand():
    assert still_known([A, B, Path("/specs/c.yaml")], KNOWN, {Path("/specs/c.yaml")}) == KNOWN


def test_what_no_spec_names_concerns_nobody():
    assert still_known([A, B], KNOWN, {Path("/specs/.a.swp"), Path("/src/code.py")}) == KNOWN


@pytest.mark.parametrize(
    "path",
    ["/texts/a.txt", "/texts", "/weights/sae", "/weights/sae/cfg.json", "/weights", "/specs/c.yml"],
)
def test_all_are_compared_when_a_named_file_its_folder_or_a_spec_that_is_gone_changed(path):
    assert still_known([A, B], KNOWN, {A, Path(path)}) is None


def test_all_are_compared_when_a_known_file_is_gone():
    assert still_known([B], KNOWN, {A}) is None


def test_all_are_compared_when_the_target_of_a_named_link_changed(tmp_path):
    (tmp_path / "real.txt").write_text("x")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    known = {A: content("a", ("file", str(tmp_path / "link.txt")))}
    assert still_known([A], known, {tmp_path / "real.txt"}) is None


def test_what_was_noticed_is_taken_once_and_a_fault_means_everything():
    changed = ChangedPaths()
    assert not changed
    changed.add({A})
    changed.add({B})
    assert changed and changed.take() == {A, B}
    assert not changed and changed.take() == set()
    changed.add({A})
    changed.add(None)
    assert changed and changed.take() is None
    assert changed.take() == set()


def test_the_folders_of_weights_are_named_and_those_of_texts_are_not(tmp_path):
    (tmp_path / "sae").mkdir()
    files = {
        A: content("a", ("gguf", str(tmp_path / "model.gguf")), ("file", "/texts/a.txt")),
        B: content("b", ("path", str(tmp_path / "sae"))),
    }
    assert folders_of_weights(files) == {tmp_path, tmp_path / "sae"}


# -- the source -----------------------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The files that were read since."""
    seen: list[str] = []
    original = folder_source.load_admitted

    def noted(file, *more):
        seen.append(file.name)
        return original(file, *more)

    monkeypatch.setattr(folder_source, "load_admitted", noted)
    return seen


@pytest.fixture
def world(tmp_path) -> World:
    world = World(tmp_path)
    for name in "abc":
        world.write(f"{name}.yaml")
    world.scan()
    return world


def noticed(world, *files):
    world.source._notice({world.folder / file for file in files})
    done = world.source.scan_if_due()
    world.simulation.clock.advance(folder_source.SECOND_LOOK_SECONDS)  # at what is missing
    done += world.source.scan_if_due()
    return {a.key.name: a.outcome for a in done}


def test_an_edit_is_applied_without_reading_other_files(world, read):
    world.write("b.yaml", cosine=0.5)
    assert noticed(world, "b.yaml") == {"b": "configured"}
    assert read == ["b.yaml"]


def test_a_second_definition_is_refused_although_the_first_file_was_not_read(world, read):
    world.write("d.yaml", name="a")
    assert noticed(world, "d.yaml") == {}
    assert read == ["d.yaml"]
    assert "also defined in" in world.source.problems[0].message


def test_a_refused_file_stays_refused_while_others_are_edited_and_is_read_again(world, read):
    (world.folder / "b.yaml").write_text("kind: Mapping\nspec: {coarse: 1}\n")
    assert noticed(world, "b.yaml") == {}
    world.write("a.yaml", cosine=0.5)
    assert noticed(world, "a.yaml") == {"a": "configured"}
    assert world.source.problems
    world.write("b.yaml", cosine=0.6)
    assert noticed(world, "b.yaml") == {"b": "configured"}
    assert not world.source.problems


def test_an_object_whose_file_is_deleted_is_deleted(world):
    (world.folder / "b.yaml").unlink()
    noticed(world, "b.yaml")
    assert world.names() == {"a", "c"}


def test_a_rescan_reads_only_files_that_are_not_as_they_were_applied(world, read):
    world.simulation.clock.set(2e9)  # so that nothing is too young to be remembered
    world.write("a.yaml", cosine=0.4)
    world.scan()
    del read[:]
    world.scan()
    assert "a.yaml" not in read
    world.simulation.delete("a", "Mapping")
    assert world.scan() == {"a": "created"}


def test_an_object_that_is_taken_out_of_an_edited_file_is_deleted(world):
    file = world.folder / "a.yaml"
    one = file.read_text()
    file.write_text(one + "---\n" + one.replace("name: a", "name: d"))
    assert noticed(world, "a.yaml") == {"d": "created"}
    file.write_text(one)
    noticed(world, "a.yaml")
    assert world.names() == {"a", "b", "c"}
