"""Nothing is called gone after one look at what moves while it is looked at."""

import contextlib
import os

import pytest

from loopscope.controller.sources.folder_source import RESCAN_SECONDS, SECOND_LOOK_SECONDS
from tests.unit.test_controller_folder_source import World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def moved_while_looked_at(monkeypatch, move):
    """Let ``move`` happen in the middle of the next look: after the first folder was listed."""
    real, todo = os.scandir, [move]

    def scandir(path):
        found = sorted(real(path), key=lambda entry: entry.name)
        if str(path).endswith("/a") and todo:
            todo.pop()()
        return contextlib.nullcontext(found)

    monkeypatch.setattr(os, "scandir", scandir)


@pytest.fixture
def world_of_two_folders(world):
    for folder in "az":
        (world.folder / folder).mkdir()
        world.write(f"{folder}/{folder}.yaml", name=folder)
        world.write(f"{folder}/other.yaml", name=f"other-{folder}")
    world.scan()
    return world


def test_a_file_that_moves_between_two_folders_while_they_are_listed_is_the_same_object(
    world_of_two_folders, monkeypatch
):
    world = world_of_two_folders
    before, folder = world.simulation.get("z"), world.folder
    moved_while_looked_at(
        monkeypatch, lambda: (folder / "z" / "z.yaml").rename(folder / "a" / "z.yaml")
    )
    for _ in range(2):
        world.scan()
    after = world.simulation.get("z")
    assert (after.uid, after.generation) == (before.uid, before.generation)
    assert "SpecVanished" not in world.simulation.event_reasons("z")


def test_a_file_that_is_gone_for_a_moment_while_it_is_saved_is_the_same_object(world):
    world.write("a.yaml")
    world.write("b.yaml")
    world.scan()
    before, text = world.simulation.get("a"), (world.folder / "a.yaml").read_text()
    (world.folder / "a.yaml").unlink()
    world.simulation.clock.advance(RESCAN_SECONDS)
    world.source.scan_if_due()
    (world.folder / "a.yaml").write_text(text)
    world.simulation.clock.advance(SECOND_LOOK_SECONDS)
    world.source.scan_if_due()
    (world.folder / "a.yaml").unlink()
    world.simulation.clock.advance(RESCAN_SECONDS)
    world.source.scan_if_due()
    assert world.simulation.get("a").uid == before.uid, "what is missed begins anew"
    world.simulation.clock.advance(SECOND_LOOK_SECONDS)
    world.source.scan_if_due()
    assert world.names() == {"b"}


def test_between_two_looks_that_miss_it_lies_no_bad_one(world):
    world.write("a.yaml")
    world.write("b.yaml")
    world.scan()
    (world.folder / "a.yaml").unlink()
    world.simulation.clock.advance(RESCAN_SECONDS)
    world.source.scan_if_due()
    (world.folder / "b.yaml").write_text("kind: [")
    world.scan()
    world.write("b.yaml")
    world.simulation.clock.advance(RESCAN_SECONDS)
    world.source.scan_if_due()
    assert world.names() == {"a", "b"}, "it was missed by one look since"
    world.scan()
    assert world.names() == {"b"}


def test_an_apply_that_prunes_refuses_what_moves(world_of_two_folders, loopscope, monkeypatch):
    folder = world_of_two_folders.folder
    world_of_two_folders.simulation.state.database.close()
    for record in world_of_two_folders.simulation.objects():
        world_of_two_folders.simulation.delete(record.key.name, "Mapping")
    apply = ("apply", "-f", str(folder), "--root", str(folder), "--apply-set", "mine")
    assert loopscope(*apply)[0] == 0
    moved_while_looked_at(
        monkeypatch, lambda: (folder / "z" / "z.yaml").rename(folder / "a" / "z.yaml")
    )
    code, _, err = loopscope(*apply, "--prune")
    assert code == 2 and "apply again" in err
    assert "z" in world_of_two_folders.names()
    assert loopscope(*apply, "--prune")[0] == 0
    assert "z" in world_of_two_folders.names()
