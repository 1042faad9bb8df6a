"""A file that did not change is not read again; one that did, or what it names, always is."""

import os
import shutil
import time
from pathlib import Path

import pytest

from loopscope.controller.apply.appliers import Applier, set_manager
from loopscope.controller.apply.code_identity import files_that_decide
from loopscope.controller.apply.unchanged import named_by
from loopscope.controller.plan import cached
from loopscope.controller.plan.cached import cached_families
from loopscope.controller.plan.requests import Request, fulfil, read_files
from loopscope.specs.actions import CODE_REVISIONS, REVISION_NOTES
from loopscope.specs.errors import InvalidSpec
from loopscope.specs.keys import Key
from loopscope.specs.yaml.loading import load_path
from loopscope.specs.yaml.spec_sources import SpecSource
from loopscope.state.db import applied, objects
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import open_state
from tests.simulated import Simulation

CAPTURE = """apiVersion: loopscope.dev/v1alpha1
kind: Capture
metadata: {name: c}
spec:
  model: {name: tiny, source: {WEIGHTS}}
  hook: blocks.1.hook_resid_post
  prompts: {target: {texts: [A is]}, neutral: {texts: [B is]}}
"""
X = Key("Experiment", "default", "x")


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
    with pytest.raises(InvalidSpec, match="also defined in another file") as refused:
        world()
    (problem,) = refused.value.problems
    assert Path(problem.file).name == "y.yaml" and problem.field == "metadata.name"
    assert problem.line > 1, "where the name stands"


def test_a_second_definition_is_refused_although_both_files_were_applied_before(world):
    moved = world.path.rename(world.path.with_name("y.yaml"))
    fulfil(world.state, world(), now=world.later)
    assert parsed(world()) == [], "the file has another name now, and is known by it"
    world.path.write_text(moved.read_text())
    with pytest.raises(InvalidSpec, match="also defined in another file"):
        world()


def test_what_one_set_applied_is_read_again_for_another(world, tmp_path):
    source = (SpecSource(world.path.parent, tmp_path),)
    other = Request(source, Applier(set_manager("others")))
    assert parsed(read_files(world.state, other, now=world.later)) == ["experiment/x"]


@pytest.mark.parametrize("named", ["folder: tiny", "gguf: tiny.gguf"])
def test_whatever_a_spec_calls_its_weights_they_are_looked_at(tmp_path, named):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny.gguf").touch()
    path = tmp_path / "capture.yaml"
    path.write_text(CAPTURE.replace("WEIGHTS", named))
    (item,) = load_path(path, tmp_path)
    kind, _, name = named.partition(": ")
    assert (kind, str(tmp_path / name)) in named_by(item)


# -- what did not change and is done -------------------------------------------------------


@pytest.fixture
def done(world):
    """The same once a controller made everything; it notes that it saw all of it."""
    simulation = Simulation(world.state.path)
    simulation.settle()
    return simulation


def families(world, *keys):
    with world.state.database.read() as connection:
        return cached_families(connection, world.state.artifacts, keys)


def test_an_experiment_that_is_done_is_known_to_need_no_work_by_a_few_columns(world, done):
    found, editions = families(world, X, Key("Experiment", "default", "nobody"))
    names = ["x-capture", "x-coarse", "x-fine", "x-mapping"]
    assert sorted(stage.key.name for stage in found[X]) == names
    assert {stage.state for stage in found[X]} == {"cached"} and list(found) == [X]
    assert {key.name for key in editions} == {"x", *names}
    shutil.rmtree(done.artifact_folder("x-fine"))
    assert families(world, X) == ({}, {}), "an artifact is gone: look closely"


def test_while_no_controller_of_this_code_saw_everything_nothing_is_known_by_a_few_columns(
    world, done, monkeypatch
):
    monkeypatch.setattr(cached, "code_identity", lambda: "another")
    assert families(world, X) == ({}, {})


@pytest.mark.parametrize("looked", [False, True], ids=["not looked", "looked"])
def test_after_an_upgrade_a_file_that_did_not_change_asks_whether_a_controller_looked_or_not(
    world, done, monkeypatch, looked
):
    monkeypatch.setitem(CODE_REVISIONS, "mapping", 99)
    monkeypatch.setitem(REVISION_NOTES, "mapping", {99: "another mapping"})
    monkeypatch.setattr(cached, "code_identity", lambda: "another")
    if looked:
        done.restart()
        assert done.settle() == [] and done.resync() == []
        with world.state.database.write() as connection:
            applied.set_mark(connection, cached.RECONCILED_BY, "another")
    reading = world()
    assert parsed(reading) == [], "it is as it was"
    with pytest.raises(TerminalFailure, match="another mapping") as refused:
        fulfil(world.state, reading, now=world.later)
    assert refused.value.reason == "ConfirmationNeeded"


def test_the_code_that_reads_files_is_all_of_its_rooms_packages_within_them_too():
    root = Path(__file__).parents[2]
    decide = {file.resolve() for file in files_that_decide()}
    assert {file for room in ("specs", "inputs") for file in (root / room).rglob("*.py")} <= decide
    assert any(file.parent.name == "texts" for file in decide)
