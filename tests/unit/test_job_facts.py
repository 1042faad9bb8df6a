"""What is read of a job without its payload."""

import pytest

from loopscope.state.job_facts import facts_of, inputs_of, model_of, passes_of

MODEL = {"identity": "model-id", "folder": "/a"}
REFERENCE = {"stage": "capture", "digest": "d1", "contentDigest": "c1"}


@pytest.mark.parametrize(
    ("payload", "model"), [({"model": MODEL}, "model-id"), ({"model": None}, None), ({}, None)]
)
def test_the_model_of_a_job_is_the_identity_that_its_payload_names(payload, model):
    assert model_of(payload) == model


def test_the_inputs_of_a_job_are_the_artifacts_that_its_payload_refers_to_once_and_in_order():
    payload = {
        "sides": {"fine": {**REFERENCE, "digest": "d2"}, "coarse": REFERENCE},
        "again": {"inner": REFERENCE},
        "no": {"digest": "d3"},
        "neither": {"digest": 5, "contentDigest": "c"},
    }
    assert inputs_of(payload) == ["d1", "d2"]


def test_captures_share_passes_for_the_same_model_and_the_same_texts_in_order():
    texts = [{"text": "a", "set": "x"}, {"text": "b", "set": "y"}]
    base = passes_of("capture", {"model": MODEL, "prompts": texts, "hook": "h"})
    other_hook = {"model": MODEL, "prompts": [{"text": "a"}, {"text": "b"}], "hook": "g"}
    assert base is not None
    assert passes_of("capture", other_hook) == base
    for changed in (
        {"model": {"identity": "other"}, "prompts": texts},
        {"model": MODEL, "prompts": texts[::-1]},
    ):
        assert passes_of("capture", changed) != base
    assert passes_of("mapping", {"model": MODEL, "prompts": texts}) is None
    assert passes_of("capture", {"model": MODEL}) is None


def test_all_facts_are_kept_in_their_columns():
    assert facts_of("mapping", {"model": MODEL, "capture": REFERENCE}).keys() == {
        "model", "passes", "inputs", "way",
    }  # fmt: skip
    found = facts_of("mapping", {"model": MODEL, "capture": REFERENCE})
    assert (found["model"], found["passes"], found["inputs"]) == ("model-id", None, ["d1"])
