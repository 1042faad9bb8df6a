"""What was captured knows texts and conditions: how they are divided is asked of others."""

from tests.simulated import Simulation, experiment_spec, texts

PROMPTS = {name: texts(*(f"{name} {n}" for n in range(12))) for name in ("target", "neutral")}


def test_an_edit_of_the_splits_of_a_finished_experiment_runs_no_model_for_its_capture(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply(experiment_spec(prompts=PROMPTS))
    assert simulation.settle() == [
        "capture", "decomposition", "decomposition", "mapping", "steering",
    ]  # fmt: skip
    captured = simulation.get("france-capture").status.artifact
    simulation.apply(experiment_spec(prompts=PROMPTS, splits={"test": 1.0}))
    ran = simulation.settle()
    assert ran[:2] == ["decomposition", "decomposition"] and "capture" not in ran
    assert simulation.get("france-capture").status.artifact == captured
    simulation.apply(experiment_spec(prompts=PROMPTS))
    assert simulation.settle() == [], "taken back, everything is there"
