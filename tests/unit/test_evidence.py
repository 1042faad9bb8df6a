"""Evidence in an experiment: asked for by a field, made behind the mapping, needed by nothing."""

import pytest

from tests.simulated import Simulation, canonical, experiment_spec, settled_experiment, texts


@pytest.fixture
def settled(tmp_path):
    return settled_experiment(tmp_path / "state")


def asked(**changes):
    return experiment_spec(evidence={}, **changes)


def test_another_mapping_makes_it_again_with_the_geometry_as_it_is(settled):
    settled.apply(asked())
    settled.settle()
    spec = experiment_spec()
    settled.apply(asked(mapping={**spec["mapping"], "minCosine": 0.5}))
    ran = settled.settle()
    assert ran[0] == "mapping"
    assert sorted(ran) == ["evidence", "mapping", "steering"]


def test_the_cells_of_a_sweep_that_asks_for_it_share_what_is_equal(tmp_path):
    simulation = Simulation(tmp_path / "state")
    cells = {"a": {"gate.policy": "report"}, "b": {"gate.policy": "enforce"}}
    simulation.apply(canonical("Experiment", {**asked(steering=None), "matrix": {"policy": cells}}))
    assert simulation.settle().count("evidence") == 1
    assert simulation.get("france-a-evidence").ready and simulation.get("france-b-evidence").ready


def test_it_can_be_applied_by_itself_beside_a_finished_experiment(settled):
    refs = {"captureRef": {"name": "france-capture"}, "mappingRef": {"name": "france-mapping"}}
    settled.apply(canonical("Evidence", refs), name="look", kind="Evidence")
    assert settled.settle() == ["evidence"]


def test_a_mapping_of_another_capture_stalls_it_in_words(settled):
    other = {"target": texts("Kyoto is", "Osaka is"), "neutral": texts("Rome is", "Oslo is")}
    settled.apply(experiment_spec(prompts=other), name="japan")
    settled.settle()
    refs = {"captureRef": {"name": "japan-capture"}, "mappingRef": {"name": "france-mapping"}}
    settled.apply(canonical("Evidence", refs), name="look", kind="Evidence")
    assert settled.settle() == []
    assert settled.reason("look") == "InputMismatch"
    assert (
        "does not rest on capture/japan-capture"
        in settled.get("look").status.condition("Ready").message
    )


def test_where_it_reads_and_writes_is_that_of_the_capture(tmp_path):
    spec = asked(positions="all", aggregation="max")
    simulation = Simulation(tmp_path / "state")
    simulation.apply(spec)
    simulation.settle()
    (job,) = [job for job in simulation.jobs() if job.stage == "evidence"]
    assert job.payload["hook"] == spec["hook"] and job.payload["positions"] == "all"
    assert "writeHook" not in job.payload and "chat" not in job.payload


def test_a_plan_names_it_as_the_one_thing_to_do(loopscope, experiment, tmp_path):
    loopscope("apply", "-f", experiment())
    simulation = Simulation(tmp_path / "state")
    simulation.settle()
    path = experiment(lambda spec: spec.update(evidence={}))
    code, out, _ = loopscope("plan", "-f", path)
    assert code == 0
    assert "evidence/x-evidence" in out and "1 to do" in out
    assert "known after the mapping; it runs some of the capture's prompts again" in out
    loopscope("apply", "-f", path)
    assert simulation.settle() == ["evidence"]
