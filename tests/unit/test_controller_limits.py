from hypothesis import given
from hypothesis import strategies as st

from loopscope.controller.jobs.limits import WINDOW_SECONDS, start_allowed_at


def test_a_first_start_is_allowed_at_once():
    assert start_allowed_at([], 1, 100.0) == 100.0


def test_a_start_below_the_limit_is_allowed_at_once():
    assert start_allowed_at([90.0, 95.0], 3, 100.0) == 100.0


def test_a_start_over_the_limit_waits_until_the_oldest_leaves_the_window():
    assert start_allowed_at([90.0, 95.0], 2, 100.0) == 90.0 + WINDOW_SECONDS


def test_starts_older_than_the_window_do_not_count():
    assert start_allowed_at([30.0, 40.0], 1, 100.0) == 100.0


def test_a_limit_that_was_lowered_waits_for_enough_starts_to_age():
    assert start_allowed_at([80.0, 85.0, 90.0], 1, 100.0) == 90.0 + WINDOW_SECONDS
    assert start_allowed_at([80.0, 85.0, 90.0], 2, 100.0) == 85.0 + WINDOW_SECONDS


def test_a_clock_that_was_set_back_never_allows_more():
    assert start_allowed_at([500.0], 1, 100.0) == 500.0 + WINDOW_SECONDS


@given(limit=st.integers(1, 4), gaps=st.lists(st.integers(0, 40), min_size=1, max_size=30))
def test_no_window_ever_holds_more_starts_than_the_limit(limit, gaps):
    now, starts = 0.0, []
    for gap in gaps:
        now = max(now + gap, start_allowed_at(starts, limit, now + gap))
        assert start_allowed_at(starts, limit, now) <= now, "a promised time must hold"
        starts.append(now)
    for start in starts:
        assert sum(start <= other < start + WINDOW_SECONDS for other in starts) <= limit


def test_a_burst_is_followed_by_even_steps():
    assert start_allowed_at([100.0], 6, 100.0, burst=2) == 100.0
    assert start_allowed_at([100.0, 100.0], 6, 100.0, burst=2) == 110.0
    assert start_allowed_at([100.0, 100.0, 110.0], 6, 115.0, burst=2) == 120.0


@given(
    limit=st.integers(1, 6),
    burst=st.integers(1, 6),
    gaps=st.lists(st.integers(0, 40), min_size=1, max_size=30),
)
def test_no_window_holds_more_than_the_burst_and_its_share(limit, burst, gaps):
    now, starts = 0.0, []
    for gap in gaps:
        now = max(now + gap, start_allowed_at(starts, limit, now + gap, burst))
        assert start_allowed_at(starts, limit, now, burst) <= now, "a promised time must hold"
        starts.append(now)
    for first, start in enumerate(starts):
        for last, other in enumerate(starts[first:], start=first):
            seconds = other - start
            if seconds < WINDOW_SECONDS:
                assert last - first + 1 <= burst + seconds * limit / 60 + 1e-6
                assert last - first + 1 <= limit
