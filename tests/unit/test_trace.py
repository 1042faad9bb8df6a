"""A trace in an experiment: asked for by a field, made behind the steering, needed by nothing."""

import pytest

from loopscope.specs.kinds.experiment import ExperimentSpec
from tests.simulated import experiment_spec, settled_experiment


@pytest.fixture
def settled(tmp_path):
    return settled_experiment(tmp_path / "state")


def asked(**changes):
    return experiment_spec(trace={}, **changes)


def steered(**changes):
    return {**experiment_spec()["steering"], **changes}


def test_other_texts_make_it_again(settled):
    settled.apply(asked())
    settled.settle()
    settled.apply(asked(steering=steered(strengths=[0.25])))
    assert settled.settle() == ["steering", "trace"]


def test_a_mapping_that_leaves_the_directions_leaves_the_trace(settled):
    settled.apply(asked())
    settled.settle()
    mapping = {**experiment_spec()["mapping"], "minCorrelation": 0.25}
    settled.apply(asked(mapping=mapping))
    assert "trace" not in settled.settle()
    assert settled.get("france-trace").ready


def test_where_the_gate_forbids_steering_there_is_no_text_and_the_experiment_is_ready(settled):
    gate = {**experiment_spec()["gate"], "minSubfeatures": 9, "policy": "enforce"}
    settled.apply(asked(gate=gate))
    assert "trace" not in settled.settle()
    made = settled.get("france-trace")
    assert made.ready and made.status.artifact is None
    assert "the gate says NO-GO" in made.status.summary["reason"]
    assert settled.get("france").ready


def test_without_steering_it_is_refused():
    spec = asked()
    del spec["steering"]
    with pytest.raises(ValueError, match="trace reads what was generated under steering"):
        ExperimentSpec.model_validate(spec)
