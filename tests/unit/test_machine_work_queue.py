"""The work queue against client-go's contract, written down a second time in the plainest way."""

import math

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from loopscope.controller.reconcile.work_queue import WorkQueue
from loopscope.specs.keys import Key
from tests.simulated import VirtualClock

KEYS = st.sampled_from([Key("Capture", "default", name) for name in "aabbc"])
CROWD = Key("Capture", "default", "crowd")
RETRY_SECONDS, RETRY_SECONDS_MAX = 0.005, 1000.0
SECONDS_PER_RETRY, BURST = 0.1, 100
NOT_APART_SECONDS = 1e-6
"""The model computes due times in another way than the queue; closer ones cannot be compared."""


class QueueAgainstModel(RuleBasedStateMachine):
    """``dirty``: to be handed out; ``processing``: handed out; ``later``: dirty at a time."""

    @initialize()
    def start(self):
        self.clock = VirtualClock()
        self.queue = WorkQueue(self.clock)
        self.dirty = {}
        self.processing = set()
        self.later = {}
        self.failures = {}
        self.bucket_seconds, self.bucket_seen_at = 0.0, self.clock.elapsed()

    # -- what the controller does -------------------------------------------------

    @rule(key=KEYS, priority=st.sampled_from(["high", "low"]))
    def add(self, key, priority):
        self.queue.add(key, priority)
        self.becomes_dirty(key, priority)

    @rule(key=KEYS, seconds=st.sampled_from([-1.0, 0.0, 0.5, 3.0, 40.0]))
    def add_after(self, key, seconds):
        due_at = self.clock.elapsed() + seconds
        self.queue.add_after(key, due_at)
        self.becomes_dirty_at(key, due_at)

    @rule(key=KEYS, times=st.sampled_from([1, 1, 4]), crowd=st.sampled_from([0, 0, 130]))
    def add_rate_limited(self, key, times, crowd):
        """``crowd``: so many retries of another object, each after a success, come first."""
        for _ in range(crowd):
            self.forget(CROWD)
            self.retry(CROWD)
        for _ in range(times):
            self.retry(key)

    @rule(times=st.sampled_from([1, 2, 5]))
    def take(self, times):
        for _ in range(times):
            self.promote()
            waiting = [key for key in self.dirty if key not in self.processing]
            urgent = [key for key in waiting if self.dirty[key] == "high"]
            expected = next(iter(urgent + waiting), None)
            assert self.queue.take() == expected
            if expected is not None:
                del self.dirty[expected]
                self.processing.add(expected)

    @rule(key=KEYS, succeeded=st.booleans())
    def done(self, key, succeeded):
        self.queue.done(key)
        self.processing.discard(key)
        if succeeded:
            self.forget(key)

    @rule(seconds=st.sampled_from([0.004, 0.03, 0.4, 2.0, 35.0, 1200.0]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)
        while any(abs(at - self.clock.elapsed()) < NOT_APART_SECONDS for at in self.later.values()):
            self.clock.advance(2 * NOT_APART_SECONDS)

    @rule(seconds=st.sampled_from([-3600.0, -0.5, 0.5, 7200.0]))
    def the_date_is_set(self, seconds):
        """Nothing follows from it."""
        self.clock.set(seconds)

    # -- the model ----------------------------------------------------------------

    def retry(self, key):
        self.queue.add_rate_limited(key)
        delay = min(RETRY_SECONDS * 2 ** self.failures.get(key, 0), RETRY_SECONDS_MAX)
        self.failures[key] = self.failures.get(key, 0) + 1
        self.becomes_dirty_at(key, self.clock.elapsed() + max(delay, self.wait_for_the_bucket()))

    def forget(self, key):
        self.queue.forget(key)
        self.failures.pop(key, None)

    def becomes_dirty(self, key, priority):
        if self.dirty.get(key) == "low" and priority == "high":
            del self.dirty[key]  # behind those that were urgent before
        if self.dirty.get(key) != "high":
            self.dirty[key] = priority

    def becomes_dirty_at(self, key, due_at):
        self.later[key] = min(due_at, self.later.get(key, math.inf))

    def promote(self):
        due = [key for key in self.later if self.later[key] <= self.clock.elapsed()]
        for key in sorted(due, key=self.later.__getitem__):
            del self.later[key]
            self.becomes_dirty(key, "high")

    def wait_for_the_bucket(self):
        """Each retry pours in a tenth of a second, time drains it, ten seconds fill it."""
        passed = self.clock.elapsed() - self.bucket_seen_at
        self.bucket_seen_at = self.clock.elapsed()
        self.bucket_seconds = max(0.0, self.bucket_seconds - passed) + SECONDS_PER_RETRY
        return max(0.0, self.bucket_seconds - BURST * SECONDS_PER_RETRY)

    # -- what always holds ----------------------------------------------------------

    @invariant()
    def it_says_when_to_come_back(self):
        due_at = self.queue.next_due_at()
        if any(key not in self.processing for key in self.dirty):
            assert due_at is not None and due_at <= self.clock.elapsed()
        elif self.later:
            assert due_at is not None
            assert due_at <= min(self.later.values()) + NOT_APART_SECONDS
            assert due_at > self.clock.elapsed() or min(self.later.values()) <= self.clock.elapsed()

    @invariant()
    def it_counts_what_waits_now(self):
        assert len(self.queue) == len(self.dirty)

    def teardown(self):
        """No wake-up was lost: all that is owed comes, each key once, and then nothing."""
        for key in self.processing:
            self.queue.done(key)
        owed = set(self.dirty) | set(self.later)
        self.clock.advance(1e6)
        came = []
        while (key := self.queue.take()) is not None:
            came.append(key)
            self.queue.done(key)
        assert sorted(came) == sorted(owed)
        assert self.queue.next_due_at() is None


TestQueueAgainstModel = QueueAgainstModel.TestCase
