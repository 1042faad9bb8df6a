"""client-go's contract, by example; ``test_machine_work_queue`` has the whole of it."""

import pytest

from loopscope.controller.reconcile.work_queue import RETRY_SECONDS, RETRY_SECONDS_MAX, WorkQueue
from loopscope.specs.keys import Key
from tests.simulated import VirtualClock

A, B, C = (Key("Capture", "default", name) for name in "abc")


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def queue(clock):
    return WorkQueue(clock)


def test_keys_come_out_in_the_order_in_which_they_went_in(queue):
    for key in (B, A, C):
        queue.add(key)
    assert [queue.take(), queue.take(), queue.take(), queue.take()] == [B, A, C, None]


def test_any_number_of_adds_collapse_to_one(queue):
    for _ in range(5):
        queue.add(A)
    assert len(queue) == 1
    assert (queue.take(), queue.take()) == (A, None)


def test_a_key_in_processing_is_not_handed_out_a_second_time(queue):
    queue.add(A)
    queue.take()
    queue.add(A)
    queue.add(B)
    assert queue.take() == B
    assert queue.take() is None


def test_a_key_added_while_it_is_processed_comes_back_when_done(queue):
    queue.add(A)
    queue.take()
    queue.add(A)
    queue.done(A)
    assert queue.take() == A
    queue.done(A)
    assert queue.take() is None


def test_edits_go_before_a_resync(queue):
    queue.add(A, "low")
    queue.add(B, "low")
    queue.add(C, "high")
    assert [queue.take(), queue.take(), queue.take()] == [C, A, B]


def test_a_low_key_is_raised_by_an_edit_and_never_lowered_by_a_resync(queue):
    queue.add(A, "low")
    queue.add(B, "low")
    queue.add(B, "high")
    queue.add(B, "low")
    assert queue.take() == B


def test_a_later_key_appears_when_its_time_has_come(queue, clock):
    queue.add_after(A, clock.elapsed() + 10)
    assert queue.take() is None
    assert queue.next_due_at() == clock.elapsed() + 10
    clock.advance(9.99)
    assert queue.take() is None
    clock.advance(0.01)
    assert queue.take() == A


def test_the_earliest_of_several_later_times_stands_and_fires_once(queue, clock):
    queue.add_after(A, clock.elapsed() + 10)
    queue.add_after(A, clock.elapsed() + 30)
    queue.add_after(A, clock.elapsed() + 5)
    clock.advance(5)
    assert queue.take() == A
    queue.done(A)
    clock.advance(60)
    assert queue.take() is None
    queue.add_after(A, clock.elapsed() + 1)
    clock.advance(1)
    assert queue.take() == A


def test_retries_back_off_by_doubling_up_to_the_limit_and_success_forgets(queue, clock):
    def delay():
        queue.add_rate_limited(A)
        pause = queue.next_due_at() - clock.elapsed()
        clock.advance(pause)
        assert queue.take() == A
        queue.done(A)
        return pause

    delays = [delay() for _ in range(22)]
    for number, pause in enumerate(delays):
        assert pause == pytest.approx(min(RETRY_SECONDS * 2**number, RETRY_SECONDS_MAX), rel=1e-3)
    assert delays[-1] == RETRY_SECONDS_MAX
    queue.forget(A)
    assert delay() == pytest.approx(RETRY_SECONDS, rel=1e-3)


def test_an_idle_queue_has_nothing_due(queue):
    assert queue.next_due_at() is None
    queue.add(A)
    assert queue.next_due_at() == queue.clock.elapsed()
    queue.take()
    assert queue.next_due_at() is None
    queue.add(A)
    assert queue.next_due_at() is None, "it waits for done"


def test_retries_of_many_keys_share_one_token_bucket(clock):
    queue = WorkQueue(clock)
    for number in range(150):
        queue.add_rate_limited(Key("Capture", "default", f"c{number}"))
    started = clock.elapsed()
    clock.time += 1.0
    soon = 0
    while (key := queue.take()) is not None:
        queue.done(key)
        soon += 1
    assert 100 <= soon <= 112
    while (due_at := queue.next_due_at()) is not None:
        clock.time = max(clock.time, due_at)
        while (key := queue.take()) is not None:
            queue.done(key)
    assert clock.elapsed() - started >= (150 - 101) / 10


def test_a_key_that_is_asked_for_in_some_time_comes_out_then_and_not_later_than_the_longest(
    queue, clock
):
    queue.add_in(A, 5.0)
    queue.add_in(B, 10 * RETRY_SECONDS_MAX)
    queue.add_in(C, -1.0)
    assert (queue.take(), queue.take()) == (C, None)
    clock.advance(4.9)
    assert queue.take() is None
    clock.advance(0.2)
    assert queue.take() == A
    clock.advance(RETRY_SECONDS_MAX - 5.2)
    assert queue.take() is None
    clock.advance(0.2)
    assert queue.take() == B
