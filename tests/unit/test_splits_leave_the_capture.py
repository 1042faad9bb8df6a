"""What was captured knows texts and conditions: how they are divided is asked of others."""

from loopscope.controller.plan.reasons import change_words
from tests.simulated import Simulation, experiment_spec, texts

PROMPTS = {name: texts(*(f"{name} {n}" for n in range(12))) for name in ("target", "neutral")}


def test_an_edit_of_the_splits_of_a_finished_experiment_runs_no_model_for_its_capture(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply(experiment_spec(prompts=PROMPTS))
    assert simulation.settle() == [
        "capture", "decomposition", "decomposition", "geometry", "mapping", "steering",
    ]  # fmt: skip
    captured = simulation.get("france-capture").status.artifact
    simulation.apply(experiment_spec(prompts=PROMPTS, splits={"test": 1.0}))
    ran = simulation.settle()
    assert ran[:2] == ["decomposition", "decomposition"] and "capture" not in ran
    assert simulation.get("france-capture").status.artifact == captured
    simulation.apply(experiment_spec(prompts=PROMPTS))
    assert simulation.settle() == [], "taken back, everything is there"


def test_the_reason_of_another_split_is_how_many_prompts_change_their_side():
    before = ["discover", "test"] * 4
    assert change_words("splits", before, before[::-1]) == "splits: 8 of 8 differ"
    assert change_words("splits", before, ["test", *before[1:]]) == "splits: 1 of 8 differ"
    letters = list("abcdefgh")
    assert change_words("x", letters, letters[::-1]) == "x: the same in another order"
