"""The environment of children: how threads wait in one that computes, unless the user says."""

import subprocess
import sys

import pytest

from loopscope.state.child_processes import SPINS, child_environment, computing_environment

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)


def test_a_thread_that_waits_for_another_soon_leaves_the_core_to_others():
    assert computing_environment()["GOMP_SPINCOUNT"] == SPINS
    assert "GOMP_SPINCOUNT" not in child_environment()


@pytest.mark.parametrize("name", WAITING)
def test_what_the_user_says_of_waiting_threads_stays(monkeypatch, name):
    monkeypatch.setenv(name, "7")
    found = computing_environment()
    assert [found.get(each) for each in WAITING].count(None) == 1
    assert found[name] == "7"


def test_the_library_that_torch_computes_with_reads_it():
    told = computing_environment(OMP_DISPLAY_ENV="verbose")
    done = subprocess.run(
        [sys.executable, "-c", "import torch"],
        env=told,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in done.stderr, done.stderr
