"""Stages that an experiment has only if its spec asks for them, and that nothing else needs."""

import pytest

from loopscope.specs.kinds.experiment import ExperimentSpec
from tests.simulated import experiment_spec, settled_experiment

MORE = {
    "evidence": {"topPrompts": 20},
    "trace": {"openings": 5},
    "drift": {"seed": 5},
    "splitting": {"seed": 5},
    "ablation": {"seed": 5},
}
"""What makes each of them again."""

pytestmark = pytest.mark.parametrize("name", MORE)


@pytest.fixture
def settled(tmp_path):
    return settled_experiment(tmp_path / "state")


def test_an_experiment_that_does_not_ask_for_it_has_none(settled, name):
    assert ExperimentSpec.model_fields[name].default is None
    assert name not in settled.get("france").spec
    assert f"france-{name}" not in settled.words()


def test_a_finished_experiment_that_asks_for_it_makes_it_and_nothing_else(settled, name):
    settled.apply(experiment_spec(**{name: {}}))
    assert settled.settle() == [name]
    made = settled.get(f"france-{name}")
    assert made.ready and any(made.status.summary.get(name) for name in ("tokens", "edges"))
    assert settled.get("france").ready


def test_taken_back_and_asked_for_again_it_is_there_at_once(settled, name):
    settled.apply(experiment_spec(**{name: {}}))
    settled.settle()
    settled.apply(experiment_spec())
    assert settled.settle() == []
    assert f"france-{name}" not in settled.words()
    settled.apply(experiment_spec(**{name: {}}))
    assert settled.settle() == []
    assert settled.get(f"france-{name}").ready


def test_more_of_it_makes_it_again_and_nothing_else(settled, name):
    settled.apply(experiment_spec(**{name: {}}))
    settled.settle()
    settled.apply(experiment_spec(**{name: MORE[name]}))
    assert settled.settle() == [name]
