"""The stand of a worker, which is an actor on a cluster and a plain object here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from loopscope.controller.jobs.on_ray import stand as module
from loopscope.controller.jobs.on_ray.needs import lacking, needs_of, still_free
from loopscope.controller.jobs.on_ray.stand import Post, Stand
from loopscope.controller.settings import Settings
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import Whereabouts, brought_here, whereabouts
from tests.conformance.test_executors import OBEDIENT
from tests.integration.real import eventually
from tests.simulated import new_state

TALKATIVE = """
import os, sys
os.write(2, os.environ.get("OMP_NUM_THREADS", "none").encode())
sys.stdin.read()
"""


def posted(folder: Path, script: str, *words: str) -> Post:
    state = new_state(folder / "state")
    state.database.close()
    return Post(whereabouts(state.path), command=(sys.executable, "-S", "-c", script, *words))


@pytest.fixture
def stand(tmp_path):
    made = Stand(posted(tmp_path, OBEDIENT, str(tmp_path)), end=lambda: None)
    yield made
    made.kill(10**9)


def test_an_order_is_passed_on_and_its_end_heard_as_often_as_asked(stand, tmp_path):
    assert stand.order(1, 7, b'{"job": 7}\n', "gemma")
    (tmp_path / "7").touch()
    eventually(lambda: stand.hear(1, 0, 0, 0.1).ended == (7,))
    assert stand.hear(1, 0, 0, 0.1).ended == (7,)
    assert stand.hear(1, 1, 0, 0.1).ended == ()
    assert stand.hear(1, 1, 0, 0.1).has_begun


def test_what_the_worker_says_is_heard_from_any_point_on(stand):
    stand.order(1, 7, b'{"job": 7}\n', None)
    eventually(lambda: stand.hear(1, 0, 0, 0.1).log == b"at work on 7\n")
    heard = stand.hear(1, 0, 3, 0.1)
    assert heard.log == b"work on 7\n" and heard.log_end == 13


def test_a_later_controller_finds_the_job_and_the_model_and_the_earlier_one_is_told_so(stand):
    stand.order(1, 7, b'{"job": 7}\n', "gemma")
    standing = stand.take(2)
    assert (standing.is_ours, standing.job, standing.model) == (True, 7, "gemma")
    assert not stand.take(1).is_ours and not stand.hear(1, 0, 0, 0.1).is_ours
    assert not stand.order(1, 8, b'{"job": 8}\n', None)
    assert not stand.leave(1) and not stand.kill(1)
    assert stand.take(2).job == 7 and stand.hear(2, 0, 0, 0.1).status is None


def test_a_killed_worker_is_heard_to_be_gone(stand):
    assert stand.kill(1)
    eventually(lambda: stand.hear(1, 0, 0, 0.1).status == -9)


def test_one_that_leaves_ends_by_itself(tmp_path):
    stand = Stand(posted(tmp_path, "import sys; sys.stdin.read()"), end=lambda: None)
    assert stand.leave(1)
    eventually(lambda: stand.hear(1, 0, 0, 0.1).status == 0)
    assert stand.order(1, 7, b"x\n", None)  # too late, and no error


def test_a_stand_that_no_controller_asks_for_ends_with_its_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ABANDONED_SECONDS", 0.0)
    ends: list[int] = []
    stand = Stand(posted(tmp_path, "import sys; sys.stdin.read()"), end=lambda: ends.append(1))
    eventually(lambda: ends)
    assert stand.hear(1, 0, 0, 0.1).status == 0


def test_the_threads_that_ray_gives_an_actor_are_none_of_the_worker_s(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    stand = Stand(posted(tmp_path, TALKATIVE), end=lambda: None)
    eventually(lambda: stand.hear(1, 0, 0, 0.1).log == b"none")
    stand.kill(1)
    assert os.environ["OMP_NUM_THREADS"] == "1"


# -- whose disk ----------------------------------------------------------------------------


def test_a_state_on_the_disk_of_this_machine_is_the_folder_itself(tmp_path):
    state = new_state(tmp_path / "state")
    assert brought_here(whereabouts(state.path), tmp_path / "others") == state.path


def test_a_state_on_the_disk_of_another_machine_is_refused(tmp_path):
    state = new_state(tmp_path / "state")
    elsewhere = Whereabouts(state.path, "another boot", None, None)
    with pytest.raises(TerminalFailure) as refused:
        brought_here(elsewhere, tmp_path / "others")
    assert refused.value.reason == "StateOnAnotherMachine"
    assert not (tmp_path / "others").exists()


# -- what a slot asks for --------------------------------------------------------------------


def test_a_slot_asks_for_a_card_for_memory_and_for_what_the_settings_name():
    settings = Settings(stage_memory_bytes={"capture": 6}, ray_resources={"CPU": 4, "fast": 1})
    assert needs_of("cpu", 0, Settings()) == {"CPU": 1}
    assert needs_of("cuda:0", 9, settings) == {"CPU": 4, "GPU": 1, "memory": 9, "fast": 1}
    assert needs_of("cpu", 0, settings, "node:1.2.3.4")["memory"] == 6
    assert 0 < needs_of("cpu", 0, settings, "node:1.2.3.4")["node:1.2.3.4"] < 0.01


def test_what_is_missing_is_named_with_the_most_that_there_is():
    nodes = [{"CPU": 8.0, "memory": 4e9}, {"CPU": 2.0, "GPU": 1.0, "memory": 9e9}]
    assert lacking({"CPU": 2, "GPU": 1}, nodes) is None
    missing = lacking({"CPU": 1, "GPU": 2, "memory": 1e10}, nodes)
    assert missing is not None and "GPU 2 (the most that one has is 1)" in missing
    assert "memory 10,000,000,000 bytes" in missing and "CPU" not in missing
    together = lacking({"CPU": 4, "GPU": 1}, nodes)
    assert together is not None and "no one node with CPU 4, GPU 1 together" in together
    assert lacking({"CPU": 1}, []) == "has no living node"


def test_each_slot_is_counted_beside_those_before_it():
    assert still_free([{"CPU": 2}, {"CPU": 2}, {"CPU": 1}], {"CPU": 3}) == [True, False, True]
