"""The job queue: one active job per digest, fencing, retries, leases."""

import pytest
import sqlalchemy

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state.db import job_ways, jobs, tables
from loopscope.state.db.job_queue import used_seconds
from loopscope.state.db.jobs import Fenced
from loopscope.state.records import Progress
from loopscope.state.retry_policy import RetryPolicy
from tests.simulated import new_state

KEY = Key("Capture", "default", "cap")
ACTION = Action("capture", {"model": "m"}, {"model": {"identity": "m"}})
POLICY = RetryPolicy()
LEASE_SECONDS = 30.0


class Queue:
    """Each call is a transaction of its own."""

    def __init__(self, database):
        self.database = database

    def __getattr__(self, verb):
        def call(*arguments, **options):
            with self.database.write() as connection:
                return getattr(jobs, verb)(connection, *arguments, **options)

        return call

    def add(self, action=ACTION, now=0.0):
        return self.enqueue(action, KEY, 1, now=now)[0]

    def start(self, job_id, now=1.0, worker="w"):
        return self.claim(job_id, worker, LEASE_SECONDS, now=now)

    def rows(self):
        with self.database.read() as connection:
            return {
                table.name: connection.execute(table.select()).all()
                for table in (tables.jobs, tables.progress, tables.job_starts, tables.counters)
            }


@pytest.fixture
def queue(tmp_path):
    return Queue(new_state(tmp_path / "state").database)


def fail(queue, job, *, transient, now=2.0, policy=POLICY):
    queue.fail(
        job.id, job.token, "OutOfMemory", "no memory", transient=transient, now=now, policy=policy
    )


WAITS_AGAIN = {
    "release": lambda queue, job: queue.release(job.id, job.token),
    "postpone": lambda queue, job: queue.postpone(job.id, job.token, "DiskFull", "m", until=2.0),
    "fail": lambda queue, job: fail(queue, job, transient=True),
    "lose": lambda queue, job: queue.lose(job, now=2.0, policy=POLICY),
}


def other(number):
    return Action("capture", {"model": number}, {})


# -- one active job per digest --------------------------------------------------------


def test_a_digest_is_queued_once_while_it_is_active(queue):
    first, added = queue.enqueue(ACTION, KEY, 1, now=0.0)
    assert added
    assert queue.enqueue(ACTION, Key("Capture", "b", "twin"), 7, now=1.0) == (first, False)
    job = queue.start(first)
    assert queue.enqueue(ACTION, KEY, 1, now=2.0) == (first, False)
    queue.succeed(first, job.token, now=3.0)
    again, added = queue.enqueue(ACTION, KEY, 1, now=4.0)
    assert added and again > first
    assert queue.find_latest(ACTION.digest).id == again


@pytest.mark.parametrize("state", ["pending", "running"])
def test_the_database_itself_refuses_a_second_active_job(queue, state):
    queue.add()
    row = {"stage": "capture", "digest": ACTION.digest, "kind": "Capture", "namespace": "n",
           "name": "n", "generation": 1, "payload": {}, "not_before": 0, "created_at": 0,
           }  # fmt: skip
    with pytest.raises(sqlalchemy.exc.IntegrityError), queue.database.write() as connection:
        connection.execute(tables.jobs.insert().values(state=state, **row))
    with queue.database.write() as connection:
        connection.execute(tables.jobs.insert().values(state="failed", **row))


# -- claiming -------------------------------------------------------------------------


def test_running_jobs_are_those_that_were_started(queue):
    late, early = queue.add(other(1), now=50.0), queue.add(other(2), now=10.0)
    assert queue.running() == []
    queue.start(late), queue.start(early)
    assert {job.id for job in queue.running()} == {late, early}
    assert queue.active_digests() == {late: other(1).digest, early: other(2).digest}


def test_a_claim_gives_a_lease_and_a_token_higher_than_any_before(queue):
    first, second = queue.add(other(1)), queue.add(other(2))
    job = queue.start(first, now=7.0)
    assert (job.state, job.worker, job.started_at) == ("running", "w", 7.0)
    assert job.lease_expires_at == 7.0 + LEASE_SECONDS
    tokens = [job.token, queue.start(second).token]
    queue.release(first, job.token)
    tokens.append(queue.start(first).token)
    assert tokens == sorted(set(tokens))


def test_a_job_is_claimed_once_and_a_refused_claim_changes_nothing(queue):
    job_id = queue.add()
    queue.start(job_id)
    before = queue.rows()
    for job in (job_id, 999):
        with pytest.raises(Fenced):
            queue.start(job)
    assert queue.rows() == before


def test_every_start_is_remembered_for_the_rate_limit(queue):
    job_id = queue.add()
    for now in (10.0, 20.0, 30.0):
        queue.release(job_id, queue.start(job_id, now=now).token)
    assert queue.starts_since(10.0) == [20.0, 30.0]


# -- fencing --------------------------------------------------------------------------

PROGRESS = Progress(0, "Capturing", 1, 2, "prompts", 0.0, 1.0)
VERBS = {
    "heartbeat": lambda q, id_, token: q.heartbeat(id_, token, LEASE_SECONDS, now=3.0),
    "progress": lambda q, id_, token: q.report_progress(id_, token, PROGRESS),
    "succeed": lambda q, id_, token: q.succeed(id_, token, now=3.0),
    "release": lambda q, id_, token: q.release(id_, token),
    "fail": lambda q, id_, token: q.fail(
        id_, token, "R", "m", transient=True, now=3.0, policy=POLICY
    ),
}


def lose(queue, job):
    queue.lose(job, now=2.0, policy=POLICY)


ENDS = {
    "claimed again": lambda q, job: (lose(q, job), q.start(job.id, now=2.0)),
    "lost": lose,
    "released": lambda q, job: q.release(job.id, job.token),
    "cancelled": lambda q, job: q.cancel(job.id, "Superseded", "", now=2.0),
    "succeeded": lambda q, job: q.succeed(job.id, job.token, now=2.0),
    "adopted": lambda q, job: q.adopt_artifact(job.id, now=2.0),
    "failed": lambda q, job: fail(q, job, transient=False),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_a_worker_whose_job_was_taken_can_do_nothing_at_all(queue, end):
    job = queue.start(queue.add())
    end(queue, job)
    before = queue.rows()
    for verb in VERBS.values():
        with pytest.raises(Fenced):
            verb(queue, job.id, job.token)
    with pytest.raises(Fenced):
        lose(queue, job)
    assert queue.rows() == before


def test_a_guessed_token_is_worth_nothing(queue):
    job = queue.start(queue.add())
    before = queue.rows()
    for token in (job.token - 1, job.token + 1, 0):
        for verb in VERBS.values():
            with pytest.raises(Fenced):
                verb(queue, job.id, token)
    assert queue.rows() == before


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
def test_the_holder_of_the_token_may_do_everything(queue, verb):
    job = queue.start(queue.add())
    verb(queue, job.id, job.token)


# -- how a job goes on ------------------------------------------------------------------


def test_a_heartbeat_extends_the_lease_and_raises_no_version(queue):
    job = queue.start(queue.add(), now=1.0)
    counters = queue.rows()["counters"]
    queue.heartbeat(job.id, job.token, LEASE_SECONDS, now=20.0)
    queue.report_progress(job.id, job.token, PROGRESS)
    assert queue.get(job.id).lease_expires_at == 20.0 + LEASE_SECONDS
    assert queue.rows()["counters"] == counters


@pytest.mark.parametrize("how", ["release", "postpone", "fail", "lose"])
def test_progress_is_shown_of_running_jobs_and_forgotten_when_they_wait_again(queue, how):
    job = queue.start(queue.add())
    queue.report_progress(job.id, job.token, PROGRESS)
    shown = queue.progress_of()[job.id]
    assert (shown.job_id, shown.phase, shown.done) == (job.id, "Capturing", 1)
    WAITS_AGAIN[how](queue, job)
    assert queue.rows()["progress"] == []
    queue.start(job.id)
    assert queue.progress_of() == {}


def test_starts_of_more_than_an_hour_ago_are_forgotten_with_each_hundredth(queue):
    for number in range(99):
        queue.start(queue.add(other(number)), now=number + 1.0)
    queue.start(queue.add(other(99)), now=3651.0)
    assert [row.started_at for row in queue.rows()["job_starts"]] == [
        *(number + 1.0 for number in range(50, 99)), 3651.0,
    ]  # fmt: skip


def test_a_stop_costs_no_attempt(queue):
    job = queue.start(queue.add())
    queue.release(job.id, job.token)
    released = queue.get(job.id)
    assert (released.state, released.attempts, released.losses) == ("pending", 0, 0)
    assert released.worker is None and released.lease_expires_at is None


def test_a_transient_failure_waits_and_runs_again(queue):
    job = queue.start(queue.add())
    fail(queue, job, transient=True, now=100.0)
    failed = queue.get(job.id)
    assert (failed.state, failed.attempts, failed.reason) == ("pending", 1, "OutOfMemory")
    assert 110.0 <= failed.not_before <= 111.0 and failed.finished_at is None
    again = queue.start(job.id, now=112.0)
    assert again.reason == "OutOfMemory", "the worker takes less this time"
    assert again.attempts == 1


def test_attempts_come_to_an_end(queue):
    job_id, policy = queue.add(), RetryPolicy(attempts_max=3, backoff_seconds=0.0)
    for _ in range(3):
        assert queue.get(job_id).state == "pending"
        fail(queue, queue.start(job_id), transient=True, policy=policy)
    ended = queue.get(job_id)
    assert (ended.state, ended.attempts, ended.finished_at) == ("failed", 3, 2.0)


def test_a_terminal_failure_is_final_at_once(queue):
    job = queue.start(queue.add())
    fail(queue, job, transient=False)
    ended = queue.get(job.id)
    assert (ended.state, ended.attempts, ended.message) == ("failed", 1, "no memory")
    assert queue.find_active(ACTION.digest) is None


def test_the_pause_doubles_up_to_ten_minutes_with_little_jitter():
    pauses = [POLICY.delay_seconds(n, jitter=lambda: 0.0) for n in range(1, 10)]
    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    assert POLICY.delay_seconds(1, jitter=lambda: 1.0) == pytest.approx(11.0)


def test_losses_are_counted_apart_and_come_to_an_end(queue):
    job_id, policy = queue.add(), RetryPolicy(losses_max=3)
    answers = [queue.lose(queue.start(job_id), now=float(n), policy=policy) for n in range(3)]
    assert answers == [True, True, False]
    ended = queue.get(job_id)
    assert (ended.state, ended.reason, ended.attempts, ended.losses) == (
        "failed", "WorkerLost", 0, 3,
    )  # fmt: skip


def test_losses_are_forgiven_to_a_job_that_got_on_and_only_by_its_worker(queue):
    job_id, policy = queue.add(), RetryPolicy(losses_max=3)
    for _ in range(2):
        queue.lose(queue.start(job_id), now=1.0, policy=policy)
    running = queue.start(job_id)
    with pytest.raises(Fenced):
        queue.forgive_losses(job_id, running.token - 1)
    queue.forgive_losses(job_id, running.token)
    assert queue.get(job_id).losses == 0
    assert queue.lose(queue.get(job_id), now=2.0, policy=policy) is True


def test_active_jobs_are_cancelled_once_and_ended_ones_never(queue):
    pending, running = queue.add(other(1)), queue.start(queue.add(other(2)))
    assert queue.cancel(pending, "Superseded", "m", now=2.0) is True
    assert queue.cancel(running.id, "Superseded", "m", now=2.0) is True
    before = queue.rows()
    assert queue.cancel(pending, "Again", "m", now=3.0) is False
    assert queue.cancel(999, "Again", "m", now=3.0) is False
    queue.adopt_artifact(pending, now=3.0)
    assert queue.rows() == before
    assert queue.listed() == [] and len(queue.listed(ended=True)) == 2


def test_a_job_whose_artifact_was_found_does_not_show_why_it_failed_before(queue):
    job = queue.start(queue.add())
    fail(queue, job, transient=True)
    queue.adopt_artifact(job.id, now=3.0)
    ended = queue.get(job.id)
    assert (ended.state, ended.reason, ended.message) == ("succeeded", None, None)


def test_a_retry_is_a_new_job_with_fresh_attempts(queue):
    job = queue.start(queue.add())
    fail(queue, job, transient=False)
    new = queue.get(queue.retry(job.id, now=5.0))
    assert new.id > job.id
    assert (new.state, new.attempts, new.losses, new.payload) == ("pending", 0, 0, ACTION.payload)
    assert queue.retry(job.id, now=6.0) == new.id, "not a second time while one is active"
    with pytest.raises(KeyError):
        queue.retry(999, now=6.0)


SEEN = Progress(1, "Capturing", 1, 2, "prompts", 9.0, 9.0)


def test_who_is_fenced_reads_what_became_of_the_job(queue):
    job_id = queue.add()
    with pytest.raises(Fenced, match="is pending under token 0, not running under token 1"):
        queue.report_progress(job_id, 1, SEEN)
    with pytest.raises(Fenced, match="is gone, not running under token 1"):
        queue.report_progress(job_id + 1, 1, SEEN)


def test_of_several_jobs_of_a_digest_the_newest_is_the_latest(queue):
    first = queue.add()
    queue.cancel(first, "Unwanted", "no object wants it", now=1.0)
    second = queue.add(now=2.0)
    assert second > first
    assert {digest: job.id for digest, job in queue.latest_of([ACTION.digest, "x"]).items()} == {
        ACTION.digest: second
    }


def test_the_last_word_on_an_action_leaves_out_failures_of_others_on_another_way(queue):
    other = Key("Capture", "default", "other")
    moved = Action("capture", ACTION.declared, {"model": {"identity": "m", "folder": "/moved"}})
    first = queue.add()
    queue.cancel(first, "Unwanted", "no object wants it", now=1.0)
    second = queue.start(queue.add(now=2.0), now=3.0)
    fail(queue, second, transient=False)

    def last(action, key):
        with queue.database.read() as connection:
            return job_ways.last_word(connection, action, key).id

    assert moved.digest == ACTION.digest and moved.way != ACTION.way
    assert last(ACTION, KEY) == last(moved, KEY) == last(ACTION, other) == second.id
    assert last(moved, other) == first


def test_an_experiment_is_charged_for_what_started_after_the_moment(queue):
    queue.start(queue.add(), now=100.0)
    with queue.database.read() as connection:
        assert used_seconds(connection, 99.0, 130.0) == {KEY: 30.0}
        assert used_seconds(connection, 100.0, 130.0) == {}
