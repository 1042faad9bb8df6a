"""Questions: applied by themselves beside a finished experiment, answered by a job of the queue."""

import pytest

from loopscope.specs.kinds.question import QuestionSpec
from tests.simulated import Simulation, canonical, capture_spec, experiment_spec, settled_experiment

NAMED = {"captureRef": {"name": "france-capture"}, "mappingRef": {"name": "france-mapping"}}
LATENTS = {**NAMED, "text": "Paris is", "latents": {"coarse": [1], "fine": [2, 3]}}
STEERED = {
    **NAMED,
    "steeringRef": {"name": "france-steering"},
    "text": "We went to",
    "steered": {"arm": "multi", "strength": 1.0},
}


@pytest.fixture
def settled(tmp_path):
    return settled_experiment(tmp_path / "state")


def ask(simulation, spec, name="q"):
    return simulation.apply(canonical("Question", spec), name=name, kind="Question")


@pytest.mark.parametrize("asked", [LATENTS, STEERED], ids=["latents", "steered"])
def test_a_question_runs_one_job_and_the_experiment_stays_as_it_is(settled, asked):
    before = settled.get("france").status
    ask(settled, asked)
    assert settled.settle() == ["question"]
    assert settled.get("q").ready
    assert settled.get("france").status == before


@pytest.mark.parametrize("asked", [LATENTS, STEERED], ids=["latents", "steered"])
def test_the_same_question_again_is_answered_from_what_is_there(settled, asked):
    ask(settled, asked)
    settled.settle()
    settled.delete("q", "Question")
    ask(settled, asked, name="again")
    assert settled.settle() == []
    assert settled.get("again").ready


def test_another_text_latent_arm_or_strength_is_another_question(settled):
    asked = [
        LATENTS,
        {**LATENTS, "text": "Lyon is"},
        {**LATENTS, "latents": {"coarse": [2], "fine": [2, 3]}},
        STEERED,
        {**STEERED, "steered": {"arm": "coarse", "strength": 1.0}},
        {**STEERED, "steered": {"arm": "multi", "strength": 0.5}},
        {**STEERED, "steered": {"arm": "multi", "strength": 1.0, "maxNewTokens": 3}},
    ]
    for number, spec in enumerate(asked):
        ask(settled, spec, name=f"q{number}")
    assert settled.settle() == ["question"] * len(asked)


def test_an_opening_of_the_steering_keeps_its_name_and_with_it_its_random_numbers(settled):
    (known,) = [job for job in settled.jobs() if job.stage == "steering"]
    opening = known.payload["openings"][0]
    ask(settled, {**STEERED, "text": opening["text"]})
    ask(settled, {**STEERED, "text": "Another one"}, name="other")
    settled.settle()
    found = {
        job.object.name: job.payload["steered"]["work"]["openings"]
        for job in settled.jobs()
        if job.stage == "question"
    }
    assert found["q"] == [{"id": opening["id"], "text": opening["text"]}]
    assert found["other"] == [{"id": "question", "text": "Another one"}]


def test_a_question_goes_before_what_waits_and_not_before_what_runs(tmp_path):
    simulation = settled_experiment(tmp_path / "state")
    for number in range(3):
        simulation.apply(capture_spec(maxTokens=40 + number), f"batch-{number}", "Capture")
    simulation.step_until_running()
    running = [job for job in simulation.jobs() if job.state == "running"]
    ask(simulation, LATENTS)
    simulation.step()
    assert [job.stage for job in running] == ["capture"]
    assert [job.id for job in simulation.jobs() if job.state == "running"] == [running[0].id]
    assert simulation.settle()[:2] == ["capture", "question"]


def test_its_priority_can_be_taken_from_it(tmp_path):
    simulation = settled_experiment(
        tmp_path / "state",
    )
    simulation.settings = simulation.settings.__class__(priority_classes={"normal": 0})
    simulation.restart()
    for number in range(3):
        simulation.apply(capture_spec(maxTokens=40 + number), f"batch-{number}", "Capture")
    simulation.step_until_running()
    ask(simulation, LATENTS)
    assert simulation.settle()[-1] == "question"


def test_what_it_names_and_is_gone_stalls_it_in_words(settled):
    ask(settled, {**LATENTS, "mappingRef": {"name": "nowhere"}})
    settled.settle()
    assert settled.reason("q") == "ReferenceNotFound"


def test_an_experiment_without_steering_cannot_be_asked_for_an_arm(tmp_path):
    simulation = Simulation(tmp_path / "state")
    spec = experiment_spec()
    spec["selection"] = {**spec["selection"], "minSelectivity": 0.99}
    simulation.apply(spec)
    simulation.settle()
    ask(simulation, STEERED)
    assert "question" not in simulation.settle()
    assert simulation.reason("q") == "InputMismatch"
    assert "steered nothing" in simulation.words()["q"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"latents": None}, "either latents or steered"),
        ({"steered": {"arm": "multi", "strength": 1}}, "either latents or steered"),
        ({"steeringRef": {"name": "s"}}, "steered goes with steeringRef"),
        ({"text": "  "}, "blank"),
        ({"text": "x" * 2001}, "at most 2000 characters"),
        ({"latents": {}}, "expected 1 to 100 latents, found 0"),
        ({"latents": {"coarse": list(range(101))}}, "expected 1 to 100 latents, found 101"),
        ({"latents": {"fine": [3, 3]}}, "fine names a latent twice"),
        ({"latents": {"fine": [-1]}}, "greater than or equal to 0"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_with_its_reason(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        QuestionSpec.model_validate({**LATENTS, **changes})
