"""The choice of the next job: reasons, order, affinity, fair share, memory, and no starvation."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from loopscope.controller.jobs.scheduling import (
    Limits,
    PendingJob,
    Place,
    QueueSnapshot,
    RunningJob,
    level,
    next_start,
    schedule,
)

NOW = 10_000.0
SLOT = Place("cpu")
GIB = 2**30


def job(number, **changes):
    return PendingJob(**{"id": number, "queued_at": NOW, "not_before": NOW, **changes})


def snapshot(*pending, places=(SLOT,), limits=None, **more):
    return QueueSnapshot(NOW, limits or Limits(), pending, places=places, **more)


def order(snapshot):
    """Return the ids in the order in which they would start, one place after the other."""
    return [decision.job_id for decision in schedule(snapshot)]


def started(snapshot):
    chosen = next_start(schedule(snapshot))
    return chosen and chosen.job_id


def waits(snapshot):
    return {one.job_id: one.wait.reason for one in schedule(snapshot) if one.wait}


# -- order ------------------------------------------------------------------------------


def test_the_oldest_of_equals_is_next():
    assert order(snapshot(job(1), job(2), job(3, queued_at=NOW - 1))) == [3, 1, 2]


def test_a_higher_priority_goes_first():
    assert order(snapshot(job(1), job(2, priority=1), job(3, priority=-1))) == [2, 1, 3]


def test_waiting_makes_up_for_priority():
    waited = job(1, queued_at=NOW - 1200, priority=-1)
    assert order(snapshot(job(2), waited, limits=Limits(aging_seconds=600))) == [1, 2]
    assert order(snapshot(job(2), waited, limits=Limits(aging_seconds=1201))) == [2, 1]


def test_jobs_for_the_model_that_a_worker_holds_go_first_within_their_priority():
    warm = Place("cpu", "w", "a")
    needs_b, needs_a = job(1, model="b"), job(2, model="a")
    assert order(snapshot(needs_b, needs_a, places=(warm,))) == [2, 1]
    assert order(snapshot(replace(needs_b, priority=1), needs_a, places=(warm,))) == [1, 2]
    assert order(snapshot(needs_b, needs_a)) == [1, 2], "nobody holds a model"


def test_a_job_without_a_model_does_not_make_a_worker_load_one():
    assert order(snapshot(job(1, model="b"), job(2), places=(Place("cpu", "w", "a"),))) == [2, 1]


def test_the_experiment_that_used_least_goes_first():
    pending = (job(1, experiments=("x",)), job(2, experiments=("y",)))
    assert order(snapshot(*pending, used_seconds={"x": 9.0})) == [2, 1]
    assert order(snapshot(*pending, used_seconds={"x": 9.0, "y": 10.0})) == [1, 2]
    assert order(snapshot(*pending, used_seconds={"x": 0.1})) == [2, 1], "y used nothing"


def test_a_job_that_several_want_stands_where_the_one_that_used_least_would():
    shared, other = job(1, experiments=("x", "y")), job(2, experiments=("z",))
    assert order(snapshot(other, shared, used_seconds={"x": 9.0, "y": 1.0, "z": 2.0})) == [1, 2]


def test_a_job_of_no_experiment_used_nothing():
    assert order(snapshot(job(1, experiments=("x",)), job(2), used_seconds={"x": 0.5})) == [2, 1]


def test_a_job_of_the_future_has_waited_for_no_time_and_not_for_less():
    limits = Limits(aging_seconds=600)
    assert order(snapshot(job(2), job(1, queued_at=NOW + 6000), limits=limits)) == [2, 1]
    assert level(job(1), Limits(aging_seconds=1.0), NOW) == 0
    ahead = job(1, queued_at=NOW + 6000, experiments=("x",))
    later = job(2, queued_at=NOW, experiments=("y",))
    assert order(snapshot(ahead, later, limits=limits, used_seconds={"y": 1.0})) == [1, 2]


def test_what_was_interrupted_goes_on_before_equals_begin():
    lost = job(1, experiments=("x",), model="b", was_interrupted=True)
    new = job(2, experiments=("y",), model="a", queued_at=NOW - 1)
    warm = Place("cpu", "w", "a")
    assert order(snapshot(new, lost, places=(warm,), used_seconds={"x": 900.0})) == [1, 2]
    assert order(snapshot(replace(new, priority=1), lost, places=(warm,))) == [2, 1]
    patient = replace(new, queued_at=NOW - 600)
    assert order(snapshot(patient, lost, limits=Limits(aging_seconds=600))) == [2, 1]


def test_of_several_that_were_interrupted_the_usual_one_is_first():
    lost = [job(n, experiments=(x,), was_interrupted=True) for n, x in ((1, "x"), (2, "y"))]
    assert order(snapshot(*lost, used_seconds={"x": 9.0, "y": 1.0})) == [2, 1]


# -- places -----------------------------------------------------------------------------


def place_of(job, *places):
    return schedule(snapshot(job, places=places))[0].place


def test_a_job_goes_to_the_worker_that_holds_its_model():
    other, holder, empty = Place("cpu", "v", "b"), Place("cpu", "w", "a"), Place("cpu")
    assert place_of(job(1, model="a"), other, empty, holder) == holder
    assert place_of(job(1, model="a"), other, empty) == empty, "the warm one is kept for others"
    assert place_of(job(1, model="a"), other) == other
    assert place_of(job(1), empty, holder) == holder, "no process is started for nothing"


def test_a_worker_without_a_model_is_taken_before_one_that_would_lose_its_own():
    other, idle, empty = Place("cpu", "v", "b"), Place("cpu", "w"), Place("cpu")
    assert place_of(job(1, model="a"), other, idle) == idle
    assert place_of(job(1), other, idle) == idle
    assert place_of(job(1), empty, idle) == idle


# -- reasons ----------------------------------------------------------------------------


def test_each_job_that_waits_says_why():
    found = snapshot(
        job(1),
        job(2, paused_by="all"),
        job(3, not_before=NOW + 9, why="OutOfMemory: m"),
        job(4),
        limits=Limits(job_starts_per_minute=1),
        places=(SLOT, SLOT),
    )
    assert started(found) == 1
    assert waits(found) == {2: "Suspended", 3: "Backoff", 4: "RateLimit"}
    (rate,) = [one.wait for one in schedule(found) if one.job_id == 4]
    assert (rate.until, rate.message) == (NOW + 60, "1 starts a minute")


def test_a_burst_is_named_where_there_is_one():
    limits = Limits(job_starts_per_minute=6, burst=1)
    _, second = schedule(snapshot(job(1), job(2), limits=limits, places=(SLOT, SLOT)))
    assert second.wait.message == "6 starts a minute, at most 1 at once"


def test_a_job_that_waits_for_its_next_try_says_for_what_it_is_tried_again():
    why, nothing = schedule(
        snapshot(job(1, not_before=NOW + 1, why="OutOfMemory: m"), job(2, not_before=NOW + 1))
    )
    assert (why.wait.message, nothing.wait.message) == ("OutOfMemory: m", "")
    assert why.wait.until == NOW + 1


def test_what_is_behind_others_waits_for_a_slot():
    assert waits(snapshot(job(1), job(2))) == {2: "Slot"}
    assert waits(snapshot(job(1), places=())) == {1: "Slot"}


def test_nothing_starts_while_the_disk_is_nearly_full():
    assert waits(snapshot(job(1), low_space="7 bytes are free")) == {1: "FreeSpace"}


def test_an_experiment_has_no_more_than_its_slots_and_others_pass_it():
    running = (RunningJob(9, "cpu", "x"),)
    found = snapshot(
        job(1, experiments=("x",)),
        job(2, experiments=("y",)),
        job(3, experiments=("x", "y")),
        limits=Limits(slots_per_experiment=1),
        running=running,
        places=(SLOT, SLOT),
    )
    assert started(found) == 2
    assert waits(found) == {1: "FairShare", 3: "FairShare"}


def test_an_experiment_may_fill_its_slots():
    running, limits = (RunningJob(9, "cpu", "x"),), Limits(slots_per_experiment=2)
    found = snapshot(job(1, experiments=("x",)), limits=limits, running=running)
    assert started(found) == 1
    full = replace(found, running=(*running, RunningJob(8, "cpu", "x")))
    assert waits(full) == {1: "FairShare"}


def test_a_job_waits_for_no_share_while_one_that_wants_it_has_slots_left():
    running, limits = (RunningJob(9, "cpu", "x"),), Limits(slots_per_experiment=1)
    shared, of_nobody = job(1, experiments=("x", "y")), job(2)
    assert started(snapshot(shared, limits=limits, running=running)) == 1
    assert started(snapshot(of_nobody, limits=limits, running=running)) == 2


def test_a_job_starts_only_where_its_memory_fits():
    running = (RunningJob(9, "cuda:0", memory_bytes=6 * GIB),)
    limits = Limits(memory_bytes={"cuda:0": 8 * GIB, "cuda:1": 8 * GIB})
    first, second = Place("cuda:0"), Place("cuda:1")
    found = snapshot(
        job(1, memory_bytes=4 * GIB), limits=limits, running=running, places=(first, second)
    )
    assert schedule(found)[0].place == second
    assert waits(replace(found, places=(first,))) == {1: "Memory"}


def test_memory_that_fits_to_the_byte_fits():
    limits = Limits(memory_bytes={"cpu": 8 * GIB})
    running = (RunningJob(9, "cpu", memory_bytes=6 * GIB),)
    assert started(snapshot(job(1, memory_bytes=2 * GIB), limits=limits, running=running)) == 1
    more = job(1, memory_bytes=2 * GIB + 1)
    assert waits(snapshot(more, limits=limits, running=running)) == {1: "Memory"}


def test_a_job_over_the_whole_budget_runs_alone():
    limits = Limits(memory_bytes={"cpu": GIB})
    large = job(1, memory_bytes=2 * GIB)
    assert started(snapshot(large, limits=limits)) == 1
    needs_none = (RunningJob(9, "cpu"),)
    assert started(snapshot(large, limits=limits, running=needs_none)) == 1


def test_a_job_that_needs_no_memory_fits_beside_any():
    limits = Limits(memory_bytes={"cpu": GIB})
    running = (RunningJob(9, "cpu", memory_bytes=2 * GIB),)
    assert started(snapshot(job(1), limits=limits, running=running)) == 1


def test_what_starts_now_takes_its_memory_from_what_is_behind_it():
    limits = Limits(memory_bytes={"cpu": 8 * GIB})
    found = snapshot(
        job(1, memory_bytes=5 * GIB),
        job(2, memory_bytes=5 * GIB),
        limits=limits,
        places=(SLOT,) * 2,
    )
    assert started(found) == 1
    assert waits(found) == {2: "Memory"}


def test_small_jobs_let_a_large_one_pass_that_has_waited_long_for_memory():
    limits = Limits(memory_bytes={"cpu": 8 * GIB}, aging_seconds=600)
    running = (RunningJob(9, "cpu", memory_bytes=4 * GIB),)
    large, small = job(1, memory_bytes=6 * GIB), job(2, memory_bytes=GIB)
    found = snapshot(large, small, limits=limits, running=running)
    assert started(found) == 2
    patient = replace(large, queued_at=NOW - 600)
    held_up = replace(found, pending=(patient, small))
    assert waits(held_up) == {1: "Memory", 2: "Memory"}
    patient_too = job(3, queued_at=NOW - 599, memory_bytes=6 * GIB)
    for one in schedule(replace(held_up, pending=(patient, small, patient_too)))[1:]:
        assert one.wait.message == "job 1 has waited longer for memory"


def test_who_waits_long_for_a_slot_holds_up_no_memory():
    limits = Limits(memory_bytes={"cpu": 8 * GIB}, aging_seconds=600, slots_per_experiment=1)
    running = (RunningJob(9, "cpu", "x", memory_bytes=4 * GIB),)
    patient = job(1, queued_at=NOW - 600, experiments=("x",), memory_bytes=GIB)
    found = snapshot(patient, job(2, memory_bytes=GIB), limits=limits, running=running)
    assert waits(found) == {1: "FairShare"}


# -- nobody starves -----------------------------------------------------------------------

AGING_SECONDS = 100.0
arrivals = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.sampled_from([-2, 0, 2]),
        st.sampled_from([None, "a", "b"]),
        st.sampled_from(["x", "y"]),
        st.booleans(),
    ),
    min_size=2,
    max_size=40,
)


@settings(max_examples=200)
@given(arrivals=arrivals, seconds_per_job=st.integers(1, 60))
def test_no_job_is_overtaken_by_one_that_came_much_later(arrivals, seconds_per_job):
    """One worker works through a stream of jobs on a virtual clock."""
    limits = Limits(job_starts_per_minute=10_000, aging_seconds=AGING_SECONDS)
    coming, at = [], 0.0
    for number, (gap, priority, model, experiment, interrupted) in enumerate(arrivals):
        at += gap
        coming.append(
            PendingJob(number, at, at, (experiment,), priority, model, was_interrupted=interrupted)
        )
    now, held, used, pending, started_in_order = 0.0, None, {"x": 0.0, "y": 0.0}, [], []
    while coming or pending:
        now = max(now, coming[0].queued_at) if not pending else now
        pending += [one for one in coming if one.queued_at <= now]
        coming = [one for one in coming if one.queued_at > now]
        place = Place("cpu", "w", held)
        found = QueueSnapshot(now, limits, tuple(pending), places=(place,), used_seconds=used)
        chosen = next_start(schedule(found))
        (job,) = [one for one in pending if one.id == chosen.job_id]
        for other in pending:
            classes = max(0, job.priority - other.priority)
            assert job.queued_at < other.queued_at + (classes + 1) * AGING_SECONDS
        pending.remove(job)
        started_in_order.append(job)
        held, now = job.model or held, now + seconds_per_job
        used[job.experiments[0]] += seconds_per_job
    assert len(started_in_order) == len(arrivals)


@given(
    priorities=st.lists(st.integers(-3, 3), min_size=1, max_size=8),
    places=st.integers(0, 4),
    limit=st.integers(1, 5),
)
def test_no_more_start_than_places_and_rate_allow(priorities, places, limit):
    pending = [job(number, priority=priority) for number, priority in enumerate(priorities)]
    limits = Limits(job_starts_per_minute=limit)
    decisions = schedule(snapshot(*pending, places=(SLOT,) * places, limits=limits))
    assert len([one for one in decisions if one.place]) == min(len(pending), places, limit)
    assert sorted(one.job_id for one in decisions) == sorted(one.id for one in pending)
