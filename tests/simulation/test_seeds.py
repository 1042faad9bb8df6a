"""The first 150 seeds; ``make chaos-test`` plays those to 500, ``make soak`` as many as wanted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.play import play
from tests.simulation.seeds import assert_all_hold, handfuls


@pytest.mark.parametrize("seeds", handfuls(0, 150), ids=str)
def test_every_invariant_holds_after_every_step(seeds):
    assert_all_hold(seeds)


def test_a_seed_is_the_same_story_each_time_and_in_each_process():
    seed = 7
    first, again = play(seed), play(seed)
    assert first.trace == again.trace
    command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed)]
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    elsewhere = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert first.trace_digest in elsewhere.stdout
