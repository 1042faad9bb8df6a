"""The loop around the controller's steps."""

import threading
from types import SimpleNamespace

import pytest

from loopscope.controller.endpoint.health import Health
from loopscope.controller.runtime import Runtime, running_controller
from loopscope.controller.settings import Settings
from loopscope.state import folder
from tests.simulated import VirtualClock, new_state


class Controller:
    """Steps that can be counted; the next is due in some seconds."""

    def __init__(self, due_in):
        self.clock = VirtualClock()
        self.due_in = due_in
        self.steps = 0
        self.on_step = lambda: None

    def step(self):
        self.steps += 1
        self.on_step()
        return self.clock.elapsed() + self.due_in


class Wake(threading.Event):
    """A signal that keeps for how long it was waited for, and waits for nothing."""

    def __init__(self):
        super().__init__()
        self.waited = []

    def wait(self, timeout=None):
        self.waited.append((timeout, self.is_set()))
        return self.is_set()


def runtime(due_in, poll_seconds=10.0):
    return Runtime(
        Controller(due_in),
        SimpleNamespace(poll_seconds=poll_seconds),
        Wake(),
        Health(VirtualClock()),
    )


def test_the_loop_steps_until_it_is_finished_and_not_once_more():
    loop = runtime(0.0)
    loop.run_until(lambda: loop.controller.steps == 3)
    assert loop.controller.steps == 3
    loop.run_until(lambda: True)
    assert loop.controller.steps == 3


@pytest.mark.parametrize(("due_in", "waits"), [(3.0, 3.0), (99.0, 10.0), (-1.0, 0.0)])
def test_it_waits_for_what_is_due_but_never_longer_than_a_poll(due_in, waits):
    loop = runtime(due_in)
    loop.run_until(lambda: loop.controller.steps == 1)
    assert loop.wake.waited == [(pytest.approx(waits), False)]


def test_a_wake_up_during_a_step_is_not_lost_and_counts_once():
    loop = runtime(99.0)
    loop.controller.on_step = lambda: loop.wake.set() if loop.controller.steps == 1 else None
    loop.run_until(lambda: loop.controller.steps == 2)
    assert [was_set for _, was_set in loop.wake.waited] == [True, False]


def test_of_the_disks_of_database_and_artifacts_the_fuller_one_counts(tmp_path, monkeypatch):
    state = new_state(tmp_path / "state")
    state.artifacts.disk.mkdir(parents=True, exist_ok=True)
    free = {state.path: 7, state.artifacts.disk: 5}
    monkeypatch.setattr(folder, "free_bytes", free.__getitem__)
    with running_controller(state, Settings()) as running:
        assert running.controller.free_bytes() == 5
        free[state.path] = 3
        assert running.controller.free_bytes() == 3
