"""How an object that waits for a job says so."""

from dataclasses import replace

import pytest

from loopscope.reconcilers.newest_job import edited_since, job_words, needs_a_human
from loopscope.specs.actions import Action
from loopscope.state.records import CANCELLED, CODE_CHANGED
from tests.hand_built import CAPTURE_KEY, job, stored

ACTION = Action("capture", {"model": "m"}, {"model": {"identity": "m"}})


@pytest.mark.parametrize(
    ("found", "reason", "message"),
    [
        (None, "JobPending", "capture job waits for a worker"),
        (job("pending"), "JobPending", "capture job waits for a worker"),
        (job("running"), "JobRunning", "capture job 7 is running"),
        (job("pending", reason="DiskFull", message="no space"), "DiskFull",
         "capture job 7 waits: no space"),
        (job("pending", reason=CODE_CHANGED, message="restart"), CODE_CHANGED,
         "capture job 7 waits: restart"),
        (job("pending", reason="Crash", message="x", attempts=2), "RetryingLater",
         "capture job 7 is retried (attempt 2 failed): Crash: x"),
        (job("pending", reason="WorkerLost", message="x"), "RetryingLater",
         "capture job 7 is retried: WorkerLost: x"),
        (job("failed", reason="DiskFull", message="no space"), "DiskFull",
         "capture job 7 waits: no space"),
    ],
)  # fmt: skip
def test_a_job_that_waits_or_runs_is_told_by_what_it_waits_for(found, reason, message):
    assert job_words("capture", found) == (reason, message)


@pytest.mark.parametrize(
    ("found", "human"),
    [
        (job("failed"), True),
        (job("failed", way=ACTION.way), True),
        (job("failed", way="another"), False),
        (job("cancelled", reason=CANCELLED), True),
        (job("cancelled", reason="Unwanted"), False),
        (job("pending", reason=CANCELLED), False),
    ],
)
def test_only_a_failure_on_the_same_way_or_a_cancellation_by_hand_needs_a_human(found, human):
    assert needs_a_human(found, ACTION if found.way else None) is human


def test_only_the_object_that_queued_a_job_and_was_edited_since_tries_it_again():
    record = replace(stored("Capture", "cap", {}), generation=2)
    assert edited_since(record, job("failed", object=CAPTURE_KEY, generation=1))
    assert not edited_since(record, job("failed", object=CAPTURE_KEY, generation=2))
    other = CAPTURE_KEY._replace(name="other")
    assert not edited_since(record, job("failed", object=other, generation=1))
