"""A worker computes only while the job is its own, and a name of a process is nobody else's."""

import os
import subprocess
import sys
import time
import types

import pytest

from loopscope.controller.jobs.local_processes import LocalProcesses
from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state.clock_reading import boot_id
from loopscope.state.db import jobs
from loopscope.state.processes import process_exists, process_name
from loopscope.state.retry_policy import RetryPolicy
from loopscope.worker import runner as runner_module
from loopscope.worker.lease import Lease
from loopscope.worker.runner import Runner
from loopscope.worker.stop import StopRequest
from tests.simulated import new_state

PATIENCE_SECONDS = 20.0
ACTION = Action("capture", {}, {"prompts": []})


class Shop:
    """A job, a runner, and a stage that does what the test says."""

    def __init__(self, folder, monkeypatch):
        self.state = new_state(folder / "state")
        self.runner = Runner(self.state, "cpu")
        self.stage = lambda payload, context, out: {}
        self.ran = []
        module = types.SimpleNamespace(run=self._run)
        monkeypatch.setattr(runner_module.importlib, "import_module", lambda name: module)
        with self.state.database.write() as connection:
            key = Key("Capture", "default", "cap")
            self.id, _ = jobs.enqueue(connection, ACTION, key, 1, now=1.0)

    def _run(self, payload, context, out):
        self.ran.append(out)
        (out / "payload").write_text("rows")
        return self.stage(payload, context, out)

    def write(self, act, *args, **options):
        with self.state.database.write() as connection:
            return act(connection, *args, **options)

    def claim(self, worker="w"):
        self.write(jobs.claim, self.id, worker, 30.0, now=2.0)
        return self.job()

    def lease(self, job, stop=None, lease_seconds=30.0):
        stop = stop or StopRequest(lambda: None)
        return Lease(self.state.database, job.id, job.token, lease_seconds, stop)

    def job(self):
        with self.state.database.read() as connection:
            return jobs.get(connection, self.id)

    def published(self):
        return self.state.artifacts.folder("capture", ACTION.digest).exists()


@pytest.fixture
def shop(tmp_path, monkeypatch):
    return Shop(tmp_path, monkeypatch)


def lost_and_claimed_again(shop, job):
    with shop.state.database.write() as connection:
        heard_of_last = jobs.head(connection, job.id)  # a heartbeat may have come since the claim
        jobs.lose(connection, heard_of_last, now=3.0, policy=RetryPolicy())
    return shop.claim("another")


def cancelled(shop, job):
    shop.write(jobs.cancel, job.id, "Superseded", "an edit", now=3.0)
    return shop.job()


# -- told by the heartbeat -------------------------------------------------------------------


@pytest.mark.parametrize("taken", [lost_and_claimed_again, cancelled], ids=lambda t: t.__name__)
def test_a_job_that_is_taken_away_ends_the_computation_between_two_reports(shop, taken):
    """Reports of the same phase are not all written: the heartbeat must tell."""
    left = []

    def stage(payload, context, out):
        context.progress("Capturing", 0, 9, "prompts")
        left.append(taken(shop, job))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            # a report within half a second of the one before is not written
            lease.check()
        pytest.fail("it went on computing")

    job = shop.claim()
    shop.stage = stage
    with shop.lease(job, lease_seconds=0.06) as lease:
        shop.runner.run(job.id, job.token, lease)
    assert [shop.job()] == left, "and wrote nothing more about the job"
    assert not shop.published()


def test_a_report_says_at_once_what_the_heartbeat_found(shop):
    job = shop.claim()
    with shop.lease(job, lease_seconds=0.06) as lease:
        lease.progress("Capturing", 0, 9, "prompts")
        cancelled(shop, job)
        deadline = time.monotonic() + PATIENCE_SECONDS
        with pytest.raises(jobs.Fenced):
            while time.monotonic() < deadline:
                lease.check()
        with pytest.raises(jobs.Fenced):
            lease.progress("Capturing", 0, 9, "prompts")
        with pytest.raises(jobs.Fenced):
            lease.wait(0.0)


def test_a_stage_that_ends_after_its_job_was_taken_away_publishes_nothing(shop):
    left = []

    def stage(payload, context, out):
        left.append(lost_and_claimed_again(shop, job))
        return {}

    job = shop.claim()
    shop.stage = stage
    shop.runner.run(job.id, job.token, shop.lease(job))
    assert [shop.job()] == left and not shop.published()


def test_a_stage_that_fails_after_its_job_was_taken_away_costs_the_other_no_attempt(shop):
    left = []

    def stage(payload, context, out):
        left.append(lost_and_claimed_again(shop, job))
        raise ValueError("odd")

    job = shop.claim()
    shop.stage = stage
    shop.runner.run(job.id, job.token, shop.lease(job))
    assert [shop.job()] == left and left[0].attempts == 0


def test_a_stop_after_the_job_was_taken_away_does_not_give_the_others_job_back(shop):
    left, stop = [], StopRequest(lambda: None)

    def stage(payload, context, out):
        left.append(lost_and_claimed_again(shop, job))
        stop.begin()
        context.progress("Capturing", 1, 9, "prompts")

    job = shop.claim()
    shop.stage = stage
    shop.runner.run(job.id, job.token, shop.lease(job, stop))
    assert [shop.job()] == left and left[0].worker == "another"


# -- before it begins -------------------------------------------------------------------------


def test_an_order_under_an_old_token_is_not_begun_and_disturbs_nothing(shop):
    old = shop.claim()
    new = lost_and_claimed_again(shop, old)
    staging = shop.state.artifacts.staging_folder(new.digest, new.token)
    (staging / "half").write_text("half")
    shop.runner.run(old.id, old.token, shop.lease(old))
    assert shop.ran == [] and shop.job() == new
    assert (staging / "half").read_text() == "half"
    assert [path.name for path in staging.parent.iterdir()] == [staging.name]


@pytest.mark.parametrize("how", ["cancelled", "given back", "never there"])
def test_an_order_for_a_job_that_does_not_run_is_not_begun(shop, how):
    job = shop.claim()
    if how == "cancelled":
        cancelled(shop, job)
    if how == "given back":
        shop.write(jobs.release, job.id, job.token)
    before = shop.job()
    job_id = job.id + 100 if how == "never there" else job.id
    shop.runner.run(job_id, job.token, shop.lease(job))
    assert shop.ran == [] and shop.job() == before
    assert not (shop.state.artifacts.root / ".staging").exists()


# -- whose process it is -----------------------------------------------------------------------


@pytest.fixture
def sleeper():
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    yield child
    child.kill()
    child.communicate()


def recycled(pid):
    """Return the name of the process that had this number before."""
    before_start, _, ticks = process_name(pid).rpartition("-")
    return f"{before_start}-{int(ticks) - 500}"


def test_a_process_that_lives_exists_under_its_own_name_only(sleeper):
    name = process_name(sleeper.pid)
    assert name.startswith(f"{sleeper.pid}@{boot_id()[:8]}-")
    assert process_exists(name)
    assert not process_exists(recycled(sleeper.pid))
    assert not process_exists(name.replace(boot_id()[:8], "00000000")), "before a restart"
    assert not process_exists(f"{sleeper.pid}@gone")


def test_a_process_that_ended_does_not_exist_even_before_its_parent_looks(sleeper):
    name = process_name(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # ended, and still a zombie
    assert not process_exists(name)
    sleeper.wait()
    assert not process_exists(name)


@pytest.mark.parametrize("name", ["", "worker-1", "-1@5.00", "x@y", "@"])
def test_what_is_no_name_of_a_process_does_not_exist(name):
    assert not process_exists(name)


def test_a_worker_whose_number_was_given_to_another_is_dead_and_the_other_is_left_alone(
    sleeper, tmp_path
):
    workers = LocalProcesses(tmp_path / "state", tmp_path / "logs", ("cpu",), lambda: None)
    stranger = recycled(sleeper.pid)
    assert not workers.is_alive(stranger)
    workers.kill(stranger)
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.wait(0.2)
    own = process_name(sleeper.pid)
    assert workers.is_alive(own)
    workers.kill(own)
    assert sleeper.wait(PATIENCE_SECONDS) != 0
    assert not workers.is_alive(own)
