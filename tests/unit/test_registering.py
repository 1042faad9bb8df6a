"""``register`` beside a controller: what happens while inputs are being found out."""

import pytest

from loopscope.commands.applying import register
from tests.simulated import Simulation

STEERING = {
    "strengths": [0.5],
    "prompts": {"texts": ["We met in"]},
    "neutralText": {"texts": ["Water is wet."]},
    "lexicon": {"texts": ["France", "Paris"]},
}


@pytest.fixture
def applied(loopscope, experiment):
    assert loopscope("apply", "-f", experiment(lambda spec: spec.update(steering=STEERING)))[0] == 0


@pytest.fixture
def while_resolving(monkeypatch):
    """Let something happen while the first input is hashed."""

    def let(happen):
        resolved, left = register._resolved, [happen]

        def slow(state, reference):
            while left:
                left.pop()()
            return resolved(state, reference)

        monkeypatch.setattr(register, "_resolved", slow)

    return let


def test_a_steering_that_begins_while_inputs_are_hashed_is_noticed(
    loopscope, applied, while_resolving, tmp_path
):
    while_resolving(lambda: Simulation(tmp_path / "state").settle())
    code, _, errors = loopscope("register", "x")
    assert code == 1 and "OutcomeExists" in errors
    assert "nothing is registered" in loopscope("register")[1]


def test_an_edit_while_inputs_are_hashed_is_noticed(
    loopscope, applied, while_resolving, experiment
):
    edited = {**STEERING, "strengths": [0.25]}
    while_resolving(
        lambda: loopscope("apply", "-f", experiment(lambda spec: spec.update(steering=edited)))
    )
    code, _, errors = loopscope("register", "x")
    assert code == 1 and "was edited meanwhile; nothing was registered" in errors
    assert "nothing is registered" in loopscope("register")[1]


def test_an_experiment_that_nobody_touches_is_registered(loopscope, applied):
    code, out, errors = loopscope("register", "x")
    assert code == 0, errors
    assert "registration 1 of default/x" in out
