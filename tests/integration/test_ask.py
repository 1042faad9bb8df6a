"""Questions to a real model: a command, a job of the queue, a worker, an answer."""

import json
import signal

import pyarrow.parquet
import pytest

from tests.integration.real import Place

pytestmark = pytest.mark.integration

TEXT = "the food in old paris was"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished experiment beside a controller, whose worker keeps the model loaded."""
    made = Place(tmp_path_factory.mktemp("ask"))
    made.write()
    made.settle()
    controller = made.start("controller")
    yield made
    controller.send_signal(signal.SIGTERM)
    controller.communicate(timeout=90)


def answer(place, *words):
    code, output = place.call("ask", "tiny", *words, "-o", "json")
    assert code == 0, output + place.worker_log()
    return json.loads(output[output.index("{\n") :])


def questions(place):
    return [job for job in place.jobs() if job["stage"] == "question"]


def test_a_text_is_answered_by_one_job_and_again_by_none(place):
    before = len(questions(place))
    found = answer(place, TEXT)
    assert "".join(token["text"] for token in found["tokens"]) == TEXT
    assert found["latents"] and any(max(one["activations"]) > 0 for one in found["latents"])
    assert all(len(one["activations"]) == len(found["tokens"]) for one in found["latents"])
    assert len(questions(place)) == before + 1
    assert answer(place, TEXT) == found
    assert len(questions(place)) == before + 1


def test_an_opening_of_the_experiment_goes_on_as_in_its_steering(place):
    folder = place.artifact("steering", "tiny")
    rows = pyarrow.parquet.read_table(folder / "steering_samples.parquet").to_pylist()
    known = {(r["arm"], r["strength"]): r["text"] for r in rows if r["prompt_id"] == "opening-0001"}
    found = answer(place, "a child liked the", "--steer", "multi", "--strength", "1.0")
    assert [(one["arm"], one["text"]) for one in found["texts"]] == [
        ("none", known["none", 0.0]),
        ("multi", known["multi", 1.0]),
    ]


def test_in_a_terminal_each_latent_is_named_with_its_strongest_tokens(place):
    code, output = place.call("ask", "tiny", TEXT)
    assert code == 0, output
    assert "largest" in output and TEXT in output
    code, output = place.call("ask", "tiny", "we saw old", "--steer", "multi")
    assert code == 0 and "multi at 1, norm" in output and "none" in output


def test_questions_are_listed_and_collected_with_their_objects(place):
    answer(place, "another text")
    code, output = place.call("get", "questions")
    assert code == 0 and "latents" in output and "another text" in output
    code, output = place.call("delete", "questions", "-l", "loopscope.dev/asked=true")
    assert code == 0, output
    code, output = place.call("gc", "--yes", "--grace", "0s")
    assert code == 0, output
    assert not list((place.state / "artifacts" / "question").glob("*/manifest.json")), output
