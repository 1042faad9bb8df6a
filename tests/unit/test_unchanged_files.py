"""A file that did not change is not read again; one that did, or what it names, always is."""

import os
import time
from pathlib import Path

import pytest

from loopscope.controller.apply.code_identity import files_that_decide
from loopscope.controller.plan.requests import Request, fulfil, read_files
from loopscope.specs.keys import Key
from loopscope.specs.yaml.spec_sources import SpecSource
from loopscope.state.db import objects
from loopscope.state.folder import open_state


@pytest.fixture
def world(experiment, tmp_path):
    path = experiment()
    state = open_state(tmp_path / "state")
    later = time.time() + 60  # as if the files were a minute old

    def read():
        return read_files(state, Request((SpecSource(path.parent, tmp_path),)), now=later)

    fulfil(state, read(), now=later)
    read.state, read.path, read.later = state, path, later
    return read


def parsed(reading):
    return [str(item.manifest.key) for item in reading.loaded]


def test_what_did_not_change_is_not_parsed(world):
    reading = world()
    assert parsed(reading) == [] and [str(k) for k in reading.unchanged.objects] == ["experiment/x"]
    assert [str(a.key) for a in fulfil(world.state, reading, now=0.0).applied] == ["experiment/x"]


def edit_the_file(world, tmp_path):
    world.path.write_text(world.path.read_text() + "# a note\n")


def edit_a_prompt_file(world, tmp_path):
    (tmp_path / "target.txt").write_text("A is\nB is\nC is\nD is\nE is\n")


def touch_the_weights(world, tmp_path):
    os.utime(tmp_path / "fine" / "sae_weights.safetensors", (1, 1))


def overwrite_the_weights_under_their_old_time(world, tmp_path):
    weights = tmp_path / "fine" / "sae_weights.safetensors"
    before = weights.stat()
    with weights.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\x01")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))


def change_the_object(world, tmp_path):
    key = Key("Experiment", "default", "x")
    with world.state.database.write() as connection:
        old = objects.get(connection, key)
        objects.apply(connection, key, {**old.spec, "maxTokens": 7}, now=0.0)


def label_the_object(world, tmp_path):
    key = Key("Experiment", "default", "x")
    with world.state.database.write() as connection:
        old = objects.get(connection, key)
        objects.apply(connection, key, old.spec, now=0.0, annotations={"by": "hand"})


def delete_the_object(world, tmp_path):
    with world.state.database.write() as connection:
        objects.remove(connection, Key("Experiment", "default", "x"), now=0.0)


@pytest.mark.parametrize(
    "change",
    [
        edit_the_file,
        edit_a_prompt_file,
        touch_the_weights,
        overwrite_the_weights_under_their_old_time,
        change_the_object,
        label_the_object,
        delete_the_object,
    ],
)
def test_whatever_changed_the_file_is_read_again(world, tmp_path, change):
    change(world, tmp_path)
    assert parsed(world()) == ["experiment/x"]


def test_other_code_reads_the_file_again(world, monkeypatch):
    monkeypatch.setattr("loopscope.controller.apply.unchanged.code_identity", lambda: "other code")
    assert parsed(world()) == ["experiment/x"]


def test_a_prompt_file_that_is_younger_than_the_apply_is_not_trusted(world, tmp_path):
    edit_a_prompt_file(world, tmp_path)
    young = Request((SpecSource(world.path.parent, tmp_path),))
    reading = read_files(world.state, young, now=time.time())
    fulfil(world.state, reading, now=0.0)
    assert parsed(world()) == ["experiment/x"], "not remembered"
    fulfil(world.state, world(), now=0.0)
    assert parsed(world()) == []


def test_a_second_definition_beside_an_unchanged_file_is_refused(world):
    (world.path.parent / "y.yaml").write_text(world.path.read_text())
    with pytest.raises(Exception, match="also defined in another file"):
        world()


def test_the_code_that_reads_files_is_all_of_its_rooms_packages_within_them_too():
    root = Path(__file__).parents[2]
    decide = {file.resolve() for file in files_that_decide()}
    assert {file for room in ("specs", "inputs") for file in (root / room).rglob("*.py")} <= decide
    assert any(file.parent.name == "texts" for file in decide)
