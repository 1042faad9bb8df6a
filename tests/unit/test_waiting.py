"""``wait``: what is still to come is waited for, what stands still is not."""

import time

import pytest

from tests.simulated import Simulation, experiment_spec


@pytest.fixture
def world(tmp_path):
    """An experiment that no controller has seen yet."""
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    return simulation


@pytest.fixture
def meanwhile(monkeypatch):
    """Let something happen in each pause; the pauses themselves take no time."""

    def then(*things):
        left = list(things)
        monkeypatch.setattr(time, "sleep", lambda _seconds: left.pop(0)() if left else None)

    return then


@pytest.mark.parametrize("words", [["mapping", "france"], ["mapping/france-mapping"]])
def test_a_stage_that_its_experiment_is_about_to_make_is_waited_for(
    loopscope, world, meanwhile, words
):
    meanwhile(world.settle)
    code, out, err = loopscope("wait", *words, "--for=condition=Ready")
    assert (code, out, err) == (0, "mapping/france-mapping: Ready\n", "")


def test_a_stage_that_does_not_come_in_time_is_a_timeout(loopscope, world):
    code, _, err = loopscope("wait", "map", "france", "--for=condition=Ready", "--timeout=0")
    assert code == 1 and "timed out" in err and "does not exist yet" in err


def test_a_cell_and_its_stage_are_waited_for_before_the_sweep_has_made_them(
    loopscope, tmp_path, meanwhile
):
    world = Simulation(tmp_path / "state")
    matrix = {"cosine": {"low": {"mapping.minCosine": 0.2}, "high": {"mapping.minCosine": 0.4}}}
    world.apply({**experiment_spec(), "matrix": matrix})
    for words in (["experiment", "france-low"], ["mapping", "france-low-mapping"]):
        code, _, err = loopscope("wait", *words, "--for=condition=Ready", "--timeout=0")
        assert code == 1 and "does not exist yet" in err
    meanwhile(world.settle)
    assert loopscope("wait", "exp", "france-low", "--for=condition=Ready")[0] == 0


@pytest.mark.parametrize("words", [["mapping", "paris"], ["mapping", "france-maping"]])
def test_what_nobody_is_about_to_make_is_not_found_at_once(loopscope, world, words):
    code, _, err = loopscope("wait", *words, "--for=condition=Ready", "--timeout=1h")
    assert code == 1 and "no mapping named" in err and "--for=create" in err


def test_a_stage_that_the_spec_does_not_ask_for_is_not_found_at_once(loopscope, world):
    spec = world.get("france").spec
    world.apply({name: value for name, value in spec.items() if name != "steering"})
    code, _, err = loopscope("wait", "steer", "france", "--for=condition=Ready", "--timeout=1h")
    assert code == 1 and "no steering named" in err


def test_what_is_created_meanwhile_is_waited_for_when_asked(loopscope, tmp_path, meanwhile):
    def create():
        Simulation(tmp_path / "state").apply()

    meanwhile(create)
    code, out, _ = loopscope("wait", "exp", "france", "--for=create")
    assert (code, out) == (0, "experiment/france: created\n")
    code, _, err = loopscope("wait", "exp", "paris", "--for=create", "--timeout=0")
    assert code == 1 and "does not exist yet" in err


@pytest.mark.parametrize("words", [["exp", "france"], ["cap", "france"]])
def test_a_stalled_object_ends_the_wait_at_once_and_says_why(loopscope, world, words):
    world.workers.failures["capture"] = ("PromptTooLong", False)
    world.settle()
    code, out, err = loopscope("wait", *words, "--for=condition=Ready", "--timeout=1h")
    assert (code, out) == (4, "")
    assert "is Stalled" in err and "PromptTooLong" in err and "loopscope why" in err
    assert loopscope("wait", *words, "--for=condition=Stalled")[0] == 0


def test_an_object_that_stalls_meanwhile_ends_the_wait(loopscope, world, meanwhile):
    world.workers.failures["capture"] = ("PromptTooLong", False)
    meanwhile(world.settle)
    assert loopscope("wait", "cap", "france", "--for=condition=Ready", "--timeout=1h")[0] == 4


def test_an_edit_of_a_stalled_object_is_waited_for(loopscope, world, meanwhile):
    world.workers.failures["capture"] = ("PromptTooLong", False)
    world.settle()
    world.workers.failures.clear()
    world.apply({**world.get("france").spec, "maxTokens": 99})
    meanwhile(world.settle)
    assert loopscope("wait", "exp", "france", "--for=condition=Ready")[0] == 0


def test_an_experiment_that_cannot_make_its_stages_ends_the_wait(loopscope, tmp_path):
    world = Simulation(tmp_path / "state")
    world.apply(name="other")
    world.settle()
    stage = world.get("other-mapping", "Mapping").spec
    world.apply(stage, "france-mapping", "Mapping")
    world.apply()
    world.settle()
    code, _, err = loopscope("wait", "steer", "france", "--for=condition=Ready", "--timeout=1h")
    assert code == 4 and "experiment/france is Stalled" in err
