"""One experiment with a matrix becomes many, and nothing is computed twice."""

import atexit
import functools
import shutil
import tempfile
import textwrap
from pathlib import Path

import pytest
import yaml

from loopscope.specs.fields import FileReader
from loopscope.specs.keys import Key
from loopscope.specs.yaml.loading import load_text
from loopscope.state.db import objects
from tests.simulated import Simulation, copy_state, experiment_spec, texts

FRANCE = {"target": texts("Paris is", "Lyon is"), "neutral": texts("Rome is", "Oslo is")}
WEATHER = {"target": texts("Rain is", "Snow is"), "neutral": texts("Wood is", "Iron is")}
MATRIX = {
    "concept": {"france": {}, "weather": {"prompts": WEATHER}},
    "hook": {
        "l1": {"hook": "blocks.1.hook_resid_post"},
        "l2": {"hook": "blocks.2.hook_resid_post"},
    },
    "pooling": {"last": {"aggregation": "last"}, "max": {"aggregation": "max"}},
}
CELLS = [
    f"s-{c}-{h}-{p}" for c in MATRIX["concept"] for h in MATRIX["hook"] for p in ("last", "max")
]


class NoFiles(FileReader):
    def content(self, file):
        raise AssertionError(file)

    def locate(self, path):
        return path


def sweep_spec(matrix=MATRIX, **changes):
    """Return what apply stores for a sweep."""
    spec = {**experiment_spec(), "positions": "all", "matrix": matrix, **changes}
    spec = {name: value for name, value in spec.items() if value is not None}
    for name in ("target", "neutral"):
        spec["prompts"][name].pop("file", None)
    head = "apiVersion: loopscope.dev/v1alpha1\nkind: Experiment\nmetadata: {name: s}\nspec:\n"
    text = head + textwrap.indent(yaml.safe_dump(spec), "  ")
    (item,) = load_text(text, "s.yaml", NoFiles())
    return item.manifest.canonical_spec()


def without(axis, value):
    return {**MATRIX, axis: {name: MATRIX[axis][name] for name in MATRIX[axis] if name != value}}


@pytest.fixture
def world(tmp_path):
    return Simulation(tmp_path / "state", slots=8, job_starts_per_minute=10_000)


@functools.cache
def settled_once():
    folder = Path(tempfile.mkdtemp(prefix="loopscope-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    world = Simulation(folder / "state", slots=8, job_starts_per_minute=10_000)
    world.apply(sweep_spec(steering=None), "s")
    world.settle(400)
    world.state.database.close()
    return folder / "state"


def settled_sweep(path):
    """Return a settled sweep of 2 concepts x 2 hooks x 2 poolings, 1000 s after it was applied."""
    copy_state(settled_once(), path)
    world = Simulation(path, slots=8, job_starts_per_minute=10_000)
    world.clock.time += 1000
    return world


@pytest.fixture
def settled(tmp_path):
    return settled_sweep(tmp_path / "state")


def experiments(world):
    return sorted(r.key.name for r in world.objects() if r.key.kind == "Experiment")


def test_every_combination_becomes_an_experiment_that_belongs_to_the_sweep(settled):
    assert experiments(settled) == sorted(["s", *CELLS])
    parent = settled.get("s")
    for name in CELLS:
        cell = settled.get(name)
        assert (cell.owner, cell.owner_uid) == (parent.key, parent.uid)
    assert len(settled.objects()) == 1 + 8 * (1 + 4)
    assert all(record.ready for record in settled.objects())


def test_a_sweep_runs_exactly_the_distinct_work_that_it_needs(settled):
    stages = [job.stage for job in settled.jobs()]
    assert {stage: stages.count(stage) for stage in sorted(set(stages))} == {
        "capture": 4,  # 2 concepts x 2 hooks; pooling shares them
        "decomposition": 16,  # those x 2 poolings x 2 dictionaries
        "geometry": 1,  # the two dictionaries are the same everywhere
        "mapping": 8,
    }


def test_a_settled_sweep_writes_no_row_and_starts_no_job(settled):
    before = settled.rows()
    settled.resync()
    settled.restart()
    assert settled.settle() == []
    assert settled.apply(sweep_spec(steering=None), "s") == "unchanged"
    assert settled.settle() == [] and settled.rows() == before


def test_the_status_counts_the_cells_and_names_the_best(settled):
    summary = settled.get("s").status.summary
    assert (summary["cells"], summary["ready"], summary["stalled"]) == (8, 8, 0)
    assert [best["cell"] for best in summary["best"]] == [
        "france-l1-last",
        "france-l1-max",
        "france-l2-last",
    ]
    assert all(best["gate"] == "GO" for best in summary["best"])
    ready = settled.get("s").status.condition("Ready")
    assert (ready.reason, ready.message) == ("ChildrenReady", "8 of 8 cells are ready")


def test_cells_and_their_stages_can_be_selected_by_axis(settled):
    for name in ("s-weather-l2-max", "s-weather-l2-max-mapping"):
        labels = settled.get(name).labels
        assert labels["loopscope.dev/sweep"] == "s"
        assert labels["sweep.loopscope.dev/concept"] == "weather"
        assert labels["sweep.loopscope.dev/pooling"] == "max"
    assert settled.get("s-weather-l2-max-mapping").labels["loopscope.dev/experiment"] == (
        "s-weather-l2-max"
    )


def test_a_value_that_is_removed_takes_its_cells_along_and_no_others(settled):
    kept = {r.key: r.uid for r in settled.objects() if "-l1-" in r.key.name}
    settled.apply(sweep_spec(without("hook", "l2"), steering=None), "s")
    assert settled.settle() == []
    assert experiments(settled) == sorted(["s", *(name for name in CELLS if "-l1-" in name)])
    assert {r.key: r.uid for r in settled.objects() if r.key.name != "s"} == kept
    assert settled.get("s").status.summary["cells"] == 4
    removed = [e for e in settled.rows()["events"] if e[3] == "s" and "Removed" in e]
    assert {event[4] for event in removed} == {"Normal"}
    gone = {f"Removed experiment/{name}" for name in CELLS if "-l2-" in name}
    assert {event[6] for event in removed} == gone


def test_a_value_that_comes_back_finds_its_artifacts(settled):
    settled.apply(sweep_spec(without("concept", "weather"), steering=None), "s")
    settled.settle()
    settled.apply(sweep_spec(steering=None), "s")
    assert settled.settle(400) == []
    assert all(record.ready for record in settled.objects())


def test_an_edit_of_a_value_edits_its_cells_only(settled):
    before = {name: settled.get(name).generation for name in CELLS}
    other = {"target": texts("Hail is", "Snow is"), "neutral": texts("Wood is", "Iron is")}
    matrix = {**MATRIX, "concept": {"france": {}, "weather": {"prompts": other}}}
    settled.apply(sweep_spec(matrix, steering=None), "s")
    ran = settled.settle(400)
    assert ran.count("capture") == 2
    for name, generation in before.items():
        expected = generation + (1 if "weather" in name else 0)
        assert settled.get(name).generation == expected, name


def test_an_edit_of_the_experiment_itself_reaches_every_cell(settled):
    settled.apply(sweep_spec(steering=None, mapping={"minCosine": 0.5}), "s")
    assert set(settled.settle(400)) == {"mapping"}
    assert all(settled.get(name).generation == 2 for name in CELLS)


def test_a_cell_edited_by_hand_is_brought_back(settled):
    with settled.state.database.write() as connection:
        key = Key("Experiment", "default", CELLS[0])
        spec = {**settled.get(CELLS[0]).spec, "hook": "blocks.3.hook_resid_post"}
        owner = objects.get(connection, settled.get("s").key)
        objects.apply(connection, key, spec, now=0.0, owner=owner)
    settled.settle(400)
    assert settled.get(CELLS[0]).spec["hook"] == "blocks.1.hook_resid_post"
    assert "Configured" in settled.event_reasons("s")


def test_deleting_the_sweep_deletes_its_cells_and_their_stages(settled):
    settled.delete("s")
    assert settled.settle() == [] and settled.objects() == []


def test_a_matrix_that_is_taken_out_leaves_one_experiment(settled):
    settled.apply(experiment_spec(steering=None, positions="all"), "s")
    settled.settle(400)
    assert experiments(settled) == ["s"] and settled.get("s").ready
    assert settled.get("s-mapping").ready


def test_a_name_that_somebody_else_has_stalls_the_sweep_with_the_reason(world):
    world.apply(experiment_spec(steering=None), CELLS[0])
    world.apply(sweep_spec(steering=None), "s")
    world.settle(400)
    ready = world.get("s").status.condition("Ready")
    assert ready.reason == "OwnedByAnother" and CELLS[0] in ready.message
    assert experiments(world) == sorted(["s", CELLS[0]])


def test_one_cell_that_needs_a_human_does_not_stop_the_others(world):
    matrix = {**MATRIX, "hook": {**MATRIX["hook"], "l9": {"hook": "blocks.9.hook_resid_post"}}}
    world.apply(sweep_spec(matrix, steering=None), "s")
    world.settle(600)
    summary = world.get("s").status.summary
    assert (summary["cells"], summary["ready"], summary["stalled"]) == (12, 8, 4)
    stalled = world.get("s").status.condition("Stalled")
    assert stalled.reason == "ChildStalled"
    assert "8 of 12 cells are ready; s-france-l9-last (and 3 more) needs a human" in stalled.message
