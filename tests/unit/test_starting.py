"""When a controller that could start nothing asks again."""

import math

import pytest

from loopscope.controller.jobs.scheduling import Decision, Place, Wait
from loopscope.controller.jobs.starting import _asked_again_at, _next_start_at

START = Decision(1, place=Place("cpu"))


def waits(reason, until=None):
    return Decision(2, wait=Wait(reason, "x", until))


@pytest.mark.parametrize(
    ("decisions", "next_start", "again"),
    [
        ([], 0.0, math.inf),
        ([START], 0.0, math.inf),
        ([waits("Slot"), waits("Memory")], 0.0, math.inf),
        ([waits("RateLimit", 7.0)], 7.0, 7.0),
        ([waits("Backoff", 9.0)], 9.0, 9.0),
        ([waits("RateLimit", 7.0), START, waits("Backoff", 5.0), waits("Slot")], 5.0, 5.0),
        ([waits("Suspended", 4.0), waits("Backoff", 5.0)], 5.0, 4.0),
    ],
)
def test_it_asks_again_when_time_alone_may_let_a_job_start(decisions, next_start, again):
    assert _next_start_at(decisions) == next_start
    assert _asked_again_at(decisions) == again
