"""Who may ask whom to make room: a class that preempts, a lower class that runs, and no other."""

from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from loopscope.controller.jobs.preemption import requests
from loopscope.controller.jobs.scheduling import Limits, Place, RunningJob, schedule
from loopscope.specs.actions import CODE_REVISIONS, WITHOUT_SHARDS
from tests.unit.test_controller_scheduling import GIB, NOW, SLOT, job, order, snapshot, waits

STAGES = Path(__file__).parents[2] / "worker/stages"
SEALING = ("context.shards", ".kept(", "captured_shards(", "recorded_sizes(")
URGENT = ("urgent", 10)


def urgent(number, **changes):
    return job(number, **{"priority": 10, "preempts_as": URGENT, **changes})


def running(number, priority=0, **changes):
    usual = {"priority": ("low", priority), "token": number, "has_shards": True}
    return RunningJob(number, "cpu", **{**usual, **changes})


def full(*pending, run, **more):
    """Return a queue without a free slot."""
    return snapshot(*pending, places=(), running=tuple(run), **more)


def asked(queue):
    return {one.job_id: one.by_job for one in requests(queue)}


def test_a_class_that_preempts_asks_the_lowest_class_and_of_equals_what_started_last():
    run = [running(7), running(8, -6, started_at=5.0), running(9, -6, started_at=9.0)]
    assert asked(full(urgent(1), run=run)) == {9: 1}


def test_the_request_says_by_which_classes():
    (one,) = requests(full(urgent(1), run=[running(8, -6)]))
    assert (one.token, one.classes) == (8, ("urgent 10", "low -6"))


def test_an_equal_or_higher_class_is_asked_by_nobody():
    assert asked(full(urgent(1), run=[running(7, 10), running(8, 144)])) == {}


def test_a_class_that_does_not_preempt_asks_nobody():
    assert asked(full(job(1, priority=144), run=[running(7, -6)])) == {}


def test_waiting_gives_no_right_and_takes_none():
    old = urgent(1, preempts_as=("little", 0), queued_at=NOW - 1e6)
    assert asked(full(old, run=[running(7, 0)])) == {}
    assert asked(full(urgent(1), run=[running(7, 9, started_at=NOW - 1e6)])) == {7: 1}


def test_what_has_no_shards_is_not_asked():
    assert asked(full(urgent(1), run=[running(7, -6, has_shards=False), running(8)])) == {8: 1}


def test_what_has_no_shards_are_the_stages_whose_code_seals_none():
    for stage in CODE_REVISIONS:
        code = "".join(file.read_text() for file in (STAGES / stage).rglob("*.py"))
        assert any(word in code for word in SEALING) is (stage not in WITHOUT_SHARDS), stage


def test_nobody_is_asked_while_a_slot_is_free():
    assert asked(snapshot(urgent(1), running=(running(7),))) == {}


def test_no_more_are_asked_than_jobs_wait_beyond_the_free_slots():
    run = tuple(running(number) for number in (6, 7, 8))
    assert len(asked(full(urgent(1), urgent(2), run=run))) == 2
    assert len(asked(snapshot(urgent(1), urgent(2), places=(SLOT,), running=run))) == 1


def test_what_was_asked_stays_asked_whatever_started_since():
    before = full(urgent(1), run=[running(7)], makes_room={7: 1})
    later = replace(before, running=(*before.running, running(8, -6, started_at=NOW)))
    assert asked(before) == asked(later) == {7: 1}


def test_a_higher_class_that_comes_later_gets_the_room_that_was_asked_for():
    highest = urgent(2, priority=144, preempts_as=("now", 144))
    assert asked(full(urgent(1), highest, run=[running(7)], makes_room={7: 1})) == {7: 2}


def test_what_waits_for_something_else_than_a_slot_asks_nobody():
    held_back = {
        "Backoff": full(urgent(1, not_before=NOW + 1), run=[running(7)]),
        "Suspended": full(urgent(1, paused_by="all"), run=[running(7)]),
        "FreeSpace": full(urgent(1), run=[running(7)], low_space="little is free"),
        "Unplaceable": full(urgent(1, refusal="too large"), run=[running(7)]),
    }
    for reason, queue in held_back.items():
        assert (waits(queue), asked(queue)) == ({1: reason}, {}), reason


def test_a_quota_is_passed_by_no_class_not_even_where_its_own_namespace_would_make_room():
    quota = Limits(resource_quotas={"a": {"slots": 1}})
    run = [running(7, namespace="a")]
    queue = full(urgent(1, namespaces=("a",)), run=run, limits=quota)
    assert (waits(queue), asked(queue)) == ({1: "Quota"}, {})


def test_a_quota_counts_who_asked_before_as_running():
    quota = Limits(resource_quotas={"a": {"slots": 1}})
    pending = [urgent(number, namespaces=("a",)) for number in (1, 2)]
    assert asked(full(*pending, run=[running(7), running(8)], limits=quota)) == {8: 1}


def test_nobody_is_asked_for_a_job_that_the_start_rate_would_hold_back():
    limits = Limits(job_starts_per_minute=1)
    assert asked(full(urgent(1), run=[running(7)], limits=limits, starts=(NOW - 59,))) == {}
    assert asked(full(urgent(1), run=[running(7)], limits=limits, starts=(NOW - 61,))) == {7: 1}


def test_a_job_is_asked_whose_room_is_large_enough():
    limits = Limits(memory_bytes={"cpu": 8 * GIB})
    small = running(7, -6, memory_bytes=GIB)
    large = running(8, 0, memory_bytes=6 * GIB)
    queue = full(urgent(1, memory_bytes=6 * GIB), run=[small, large], limits=limits)
    assert asked(queue) == {8: 1}


def test_of_two_that_ask_the_higher_class_is_heard_first():
    lower = urgent(1, queued_at=NOW - 1e5)
    highest = urgent(2, priority=144, preempts_as=("now", 144))
    assert asked(full(lower, highest, run=[running(7)])) == {7: 2}


def test_who_was_promised_room_starts_before_those_that_waited_longer():
    old, waiting = job(1, queued_at=NOW - 1e6), urgent(2)
    assert order(full(old, waiting, run=[running(7)])) == [1, 2]
    assert order(full(old, waiting, run=[running(7)], makes_room={7: 2})) == [2, 1]
    assert order(snapshot(replace(old, id=7), waiting, makes_room={7: 2})) == [2, 7]


def test_who_made_room_waits_by_a_word_of_its_own_and_who_asked_says_whom():
    gave = job(7, made_room="made room for capture job 1")
    assert waits(full(gave, run=[running(8)])) == {7: "Preempted"}
    queue = full(urgent(1), run=[running(8)], makes_room={8: 1})
    (decision,) = [one for one in schedule(queue) if one.job_id == 1]
    assert "job 8 was asked to make room" in decision.wait.message


classes = st.integers(-3, 3)
queues = st.builds(
    lambda waiting, run, places: snapshot(
        *(
            job(n, priority=value, preempts_as=("p", value) if preempts else None,
                queued_at=NOW - age)
            for n, (value, preempts, age) in enumerate(waiting, 1)
        ),
        places=(Place("cpu"),) * places,
        running=tuple(
            running(100 + n, value, has_shards=shards, started_at=NOW - age)
            for n, (value, shards, age) in enumerate(run)
        ),
    ),
    st.lists(st.tuples(classes, st.booleans(), st.integers(0, 5000)), max_size=6),
    st.lists(st.tuples(classes, st.booleans(), st.integers(0, 5000)), max_size=6),
    st.integers(0, 2),
)  # fmt: skip


@given(queue=queues)
@settings(max_examples=100)
def test_whatever_the_queue_each_asks_one_of_a_lower_class_and_no_room_is_made_in_vain(queue):
    pending = {one.id: one for one in queue.pending}
    run = {one.id: one for one in queue.running}
    found = requests(queue)
    assert len({one.by_job for one in found}) == len({one.job_id for one in found}) == len(found)
    for one in found:
        value = pending[one.by_job].preempts_as[1]
        assert run[one.job_id].priority[1] < value and run[one.job_id].has_shards
    gone = {one.job_id for one in found}
    starting = sorted(one.by_job for one in found)
    after = replace(
        queue,
        running=tuple(one for one in queue.running if one.id not in gone),
        places=(*queue.places, *(SLOT for _ in found)),
        makes_room={one.job_id: one.by_job for one in found},
    )
    started = {one.job_id for one in schedule(after) if one.place is not None}
    assert started.issuperset(starting), "all the room that was asked for is used by who asked"
    if not queue.places:
        same = {one.job_id: one.by_job for one in found}
        assert asked(replace(queue, makes_room=same)) == same, "asked once more, the same are asked"
