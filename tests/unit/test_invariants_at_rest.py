"""What a database at rest shows, on rows made by hand: each rule is broken in each way."""

from dataclasses import replace

import pytest

from loopscope.specs.keys import Key
from loopscope.specs.status import Condition, Status
from loopscope.state import invariants
from loopscope.state.invariants import Seen
from loopscope.state.records import ChangeRecord
from tests.hand_built import job, stored

ONE, TWO, GONE = (Key("Capture", "default", name) for name in ("one", "two", "gone"))
LOG = [ChangeRecord(1, "ADDED", GONE), ChangeRecord(2, "DELETED", GONE),
       ChangeRecord(3, "ADDED", ONE), ChangeRecord(4, "MODIFIED", TWO)]  # fmt: skip


def record(key, version, **changes):
    return replace(stored(key.kind, key.name, {}), resource_version=version, **changes)


RUNNING = {"worker": "w", "lease_expires_at": 9.0, "started_at": 1.0, "token": 1}
SEEN = Seen(
    objects=[record(ONE, 3), record(TWO, 4)],
    jobs=[replace(job("running"), **RUNNING)],
    artifacts={},
    changes=LOG,
    starts=[(1, 7, 1.0)],
    progress_jobs=[7],
    version=4,
    token=1,
)


def found(**changes):
    seen = replace(SEEN, **changes)
    return [(v.invariant, v.where, v.what) for rule in invariants.AT_REST for v in rule(seen)]


def status(observed, *conditions):
    return Status(observed, tuple(Condition("Ready", "True", "x", "", g) for g in conditions))


def a_job(state, **changes):
    return replace(job(state), **changes)


def test_rows_in_order_break_nothing():
    assert found() == []
    assert found(changes=[], objects=[record(ONE, 3)]) == []
    assert found(changes=LOG[2:], objects=[record(ONE, 3), record(TWO, 4), record(GONE, 2)]) == []


@pytest.mark.parametrize(
    ("changes", "violation"),
    [
        ({"jobs": [a_job("pending"), a_job("pending", id=8)]},
         ("I3", "d", "2 jobs are pending or running")),
        ({"token": 0}, ("I5", "capture job 7", "token 1 was never issued")),
        ({"starts": [(1, 8, 1.0)], "progress_jobs": [],
          "jobs": [*SEEN.jobs, a_job("succeeded", id=8, digest="e", finished_at=2.0)]},
         ("I5", "capture job 7", "was not started under token 1")),
        ({"jobs": [a_job("running", **{**RUNNING, "token": 0})]},
         ("I5", "capture job 7", "was not started under token 0")),
        ({"objects": [record(ONE, 3, status=status(2)), record(TWO, 4)]},
         ("I6", "capture/one", "generation 1, observed 2")),
        ({"objects": [record(ONE, 3, status=status(0, 0, 3, 1)), record(TWO, 4)]},
         ("I6", "capture/one", "generation 1, observed 3")),
        ({"objects": [record(ONE, 3, generation=0, status=status(0)), record(TWO, 4)]},
         ("I6", "capture/one", "generation 0, observed 0")),
        ({"changes": [LOG[0], *LOG[2:]], "objects": [record(GONE, 1), *SEEN.objects]},
         ("I7", "change log", "3 lines from 1 to 4, newest is 4")),
        ({"changes": LOG[2:], "objects": [*SEEN.objects, record(GONE, 3)]},
         ("I7", "capture/gone", "its last change is not in the log")),
        ({"objects": [record(ONE, 3), record(TWO, 3)]},
         ("I7", "capture/two", "is at 3; the log ends with MODIFIED at 4")),
        ({"objects": [*SEEN.objects, record(GONE, 2)]},
         ("I7", "capture/gone", "is at 2; the log ends with DELETED at 2")),
        ({"objects": [record(ONE, 3)]},
         ("I7", "capture/two", "is gone, but the log does not say so")),
        ({"changes": [], "objects": [record(ONE, 5)]},
         ("I7", "capture/one", "version 5 was never issued")),
        ({"objects": [record(ONE, 3, deletion_timestamp=1.0), record(TWO, 4)]},
         ("I8", "capture/one", "is marked as deleted and has no finalizer")),
        ({"jobs": [a_job("failed")]}, ("I12", "capture job 7", "failed, ended at None")),
        ({"jobs": [a_job("pending", finished_at=2.0)]},
         ("I12", "capture job 7", "pending, ended at 2.0")),
        ({"jobs": [a_job("pending", lease_expires_at=9.0, worker="w")]},
         ("I12", "capture job 7", "pending, worker w, lease until 9.0")),
        ({"jobs": [a_job("running", **{**RUNNING, "worker": None})]},
         ("I12", "capture job 7", "running, worker None, lease until 9.0")),
        ({"jobs": [a_job("running", token=1)]},
         ("I12", "capture job 7", "running, worker None, lease until None")),
        ({"objects": [record(ONE, 3, owner_uid="uid-x", owner=TWO), record(TWO, 4)]},
         ("rows", "capture/one", "its owner capture/two (uid-x) does not exist")),
        ({"objects": [record(ONE, 3, owner_uid="uid-two", owner=ONE), record(TWO, 4)]},
         ("rows", "capture/one", "its owner capture/one (uid-two) does not exist")),
        ({"progress_jobs": [7, 9]}, ("rows", "progress", "names job 9: there is none")),
        ({"starts": [(1, 7, 1.0), (0, 5, 1.0)]},
         ("rows", "job_starts", "names job 5: there is none")),
    ],
)  # fmt: skip
def test_a_row_that_breaks_a_rule_is_named_with_what_it_shows(changes, violation):
    assert found(**changes) == [violation]


def test_a_token_that_two_jobs_have_is_named_for_both():
    two = [*SEEN.jobs, a_job("succeeded", id=8, digest="e", token=1, finished_at=2.0)]
    assert found(jobs=two) == [
        ("I5", "capture job 7", "shares token 1"),
        ("I5", "capture job 8", "shares token 1"),
    ]


def test_a_deletion_that_waits_for_a_finalizer_and_an_owner_that_is_there_are_in_order():
    objects = [
        record(ONE, 3, deletion_timestamp=1.0, finalizers=("x",), owner_uid="uid-two", owner=TWO),
        record(TWO, 4),
    ]
    assert found(objects=objects) == []
