"""Workers that die, fall silent or fail: their jobs come back, and nothing runs twice."""

import shutil

import pytest

from loopscope.state import failpoints
from loopscope.state.db import jobs
from loopscope.state.failures import TransientFailure
from tests.simulated import Simulation, experiment_spec, texts


def test_a_lost_worker_costs_no_attempt_and_its_job_runs_under_a_higher_token(capture):
    capture.step_until_running()
    first = capture.jobs()[0]
    capture.workers.die()
    capture.clock.advance(1.5)
    capture.step()
    again = capture.jobs()[0]
    assert (again.state, again.attempts, again.losses) == ("running", 0, 1)
    assert again.id == first.id and again.token > first.token
    assert capture.settle() == ["capture"]
    assert "WorkerLost" in capture.event_reasons("cap")


def test_a_worker_that_falls_silent_loses_its_lease_and_changes_nothing_afterwards(capture):
    capture.step_until_running()
    (worker,) = capture.workers.assigned
    stale = capture.jobs()[0].token
    capture.look_on(capture.settings.lease_seconds + 1)
    capture.step()
    assert worker not in capture.workers.assigned  # killed
    job = capture.jobs()[0]
    with pytest.raises(jobs.Fenced), capture.state.database.write() as connection:
        jobs.succeed(connection, job.id, stale, now=capture.clock.now())
    assert capture.settle() == ["capture"]


def test_a_heartbeat_that_comes_before_the_lease_is_taken_keeps_it(capture):
    capture.step_until_running()
    before = capture.jobs()[0]
    capture.look_on(capture.settings.lease_seconds + 1)

    def beat(name: str) -> None:
        if name == "lease-take-back":  # it was found silent; nothing is written yet
            with capture.state.database.write() as connection:
                jobs.heartbeat(connection, before.id, before.token, 30.0, now=capture.clock.now())

    with failpoints.handled_by(beat):
        capture.step()
    after = capture.jobs()[0]
    assert (after.state, after.token, after.losses) == ("running", before.token, 0)
    assert capture.workers.complete() == ["capture"]
    assert "WorkerLost" not in capture.event_reasons("cap")


def test_a_lease_that_was_renewed_is_not_lost_in_the_transaction_that_takes_it(capture):
    capture.step_until_running()
    before, now = capture.jobs()[0], capture.clock.now() + 1
    with capture.state.database.write() as connection:
        jobs.heartbeat(connection, before.id, before.token, 30.0, now=now)
    policy = capture.settings.retry
    with pytest.raises(jobs.Fenced), capture.state.database.write() as connection:
        jobs.lose(connection, before, now=now + 60, policy=policy)
    renewed = capture.jobs()[0]
    with capture.state.database.write() as connection:
        assert jobs.lose(connection, renewed, now=now + 60, policy=policy)


def test_who_waited_for_the_lock_lets_the_workers_that_waited_too_write_first(capture):
    capture.step_until_running()
    before = capture.jobs()[0]
    capture.look_on(capture.settings.lease_seconds + 1)

    def held_by_another(name: str) -> None:
        if name == "lease-take-back":
            capture.clock.advance(10.0)

    with failpoints.handled_by(held_by_another):
        capture.step()
    after = capture.jobs()[0]
    assert (after.state, after.token, after.losses) == ("running", before.token, 0)
    capture.clock.advance(1.0)
    capture.step()
    assert capture.jobs()[0].losses == 1, "nobody held the lock, and it is silent still"


@pytest.mark.parametrize(("reason", "ended"), [("DatabaseBusy", True), ("DiskFull", False)])
def test_a_silent_worker_is_ended_when_it_may_hold_the_write_lock(capture, reason, ended):
    capture.step_until_running()
    capture.look_on(capture.settings.lease_seconds + 1)

    def no_transaction(name: str) -> None:
        if name == "transaction-begin":
            raise TransientFailure(reason, "not now")

    with failpoints.handled_by(no_transaction):
        capture.step()
        assert capture.workers.assigned, "another process may be writing"
        capture.look_on(capture.settings.lease_seconds + 1)
    assert (capture.workers.assigned == {}) is ended
    assert capture.settle() == ["capture"]


def test_a_worker_that_dies_for_ever_stalls_its_object(capture):
    capture.step_until_running()
    for _ in range(capture.settings.retry.losses_max):
        capture.workers.die()
        capture.clock.advance(2)
        capture.step()
    assert capture.get("cap").stalled and capture.reason("cap") == "WorkerLost"
    assert [job.state for job in capture.jobs()] == ["failed"]


@pytest.fixture
def contended(tmp_path):
    """On one slot runs the capture of ``first``, for a while now; that of ``second`` waits."""
    made = Simulation(tmp_path / "state")
    made.apply(name="first")
    made.step_until_running()
    prompts = {"target": texts("other"), "neutral": texts("things")}
    made.apply(experiment_spec(prompts=prompts), "second")
    made.look_on(20)
    return made


def whose(simulation):
    (running,) = [job for job in simulation.jobs() if job.state == "running"]
    return running.object.name.partition("-")[0]


def test_a_lost_job_goes_on_before_one_that_never_ran(contended):
    assert whose(contended) == "first"
    contended.workers.die()
    contended.look_on(3)
    assert whose(contended) == "first"
    assert len(contended.settle()) == 11


def test_a_job_that_loses_a_second_worker_without_getting_on_waits_in_its_turn(contended):
    for _ in range(2):
        contended.workers.die()
        contended.look_on(3)
    assert whose(contended) == "second"


def test_a_job_that_a_stop_interrupted_goes_on_first_as_well(contended):
    (job,) = [job for job in contended.jobs() if job.state == "running"]
    with contended.state.database.write() as connection:
        jobs.release(connection, job.id, job.token)
    contended.workers.stop()
    contended.restart()
    contended.step_until_running()
    assert whose(contended) == "first"


def test_a_job_that_failed_waits_in_its_turn(contended):
    contended.workers.failures["capture"] = ("Trouble", True)
    contended.workers.complete()
    contended.look_on(3)
    assert whose(contended) == "second"


def test_a_crash_between_rename_and_commit_is_adopted_without_a_second_run(capture):
    capture.step_until_running()
    capture.workers.crash_after_rename()
    capture.restart()
    capture.clock.advance(2)
    assert capture.settle() == []
    assert capture.get("cap").ready
    (job,) = capture.jobs()
    assert job.state == "succeeded"
    starts = capture.rows()["job_starts"]
    assert len(starts) == 1


def test_shards_that_a_worker_left_after_publishing_are_removed_by_a_resync(settled):
    artifacts = settled.state.artifacts
    published = settled.get("france-fine").status.artifact.digest
    for digest in (published, "e" * 64):
        artifacts.work_folder(digest).mkdir(parents=True)
    assert settled.resync() == []
    assert not artifacts.work_folder(published).exists()
    assert artifacts.work_folder("e" * 64).is_dir()


def test_a_terminal_failure_stalls_everything_below_and_a_spec_edit_un_stalls_it(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.workers.failures["capture"] = ("PromptTooLong", False)
    simulation.apply()
    assert simulation.settle() == ["capture"]
    assert all(record.stalled and not record.ready for record in simulation.objects())
    assert simulation.reason("france-capture") == "PromptTooLong"
    assert "PromptTooLong" in simulation.words()["france"]
    assert simulation.resync() == []
    simulation.workers.failures.clear()
    simulation.apply(experiment_spec(maxTokens=256))
    simulation.step_until_running()
    assert not any(record.stalled for record in simulation.objects())


def test_a_device_that_was_missing_is_tried_again_by_each_new_controller(capture):
    capture.workers.failures["capture"] = ("DeviceUnavailable", False)
    assert capture.settle() == ["capture"]
    assert capture.get("cap").stalled
    assert capture.resync() == [], "not by the same controller"
    capture.restart()
    assert capture.settle() == ["capture"]
    assert capture.get("cap").stalled and capture.reason("cap") == "DeviceUnavailable"
    capture.workers.failures.clear()
    capture.restart()
    assert capture.settle() == ["capture"]
    assert capture.get("cap").ready
    capture.restart()
    assert capture.settle() == []


def test_what_failed_for_another_reason_is_not_tried_again_by_a_new_controller(capture):
    capture.workers.failures["capture"] = ("PromptTooLong", False)
    capture.settle()
    capture.restart()
    assert capture.settle() == []


def test_a_spec_edit_that_leaves_the_digest_tries_a_failed_stage_again(settled):
    settled.workers.failures["decomposition"] = ("Odd", False)
    shutil.rmtree(settled.artifact_folder("france-fine"))
    assert settled.resync() == ["decomposition"]
    assert settled.get("france-fine").stalled
    settled.workers.failures.clear()
    assert settled.resync() == []
    settled.apply(experiment_spec(selection={"maxFiringRateNeutral": 0.21}))
    assert settled.settle().count("decomposition") == 1
    assert settled.get("france").ready


def test_a_transient_failure_is_retried_with_growing_pauses_then_stalls(capture):
    capture.workers.failures["capture"] = ("OutOfMemory", True)
    pauses = []
    for _ in range(5):
        capture.step_until_running()
        capture.workers.complete()
        capture.step()
        job = capture.jobs()[0]
        if job.state == "pending":
            pause = job.not_before - capture.clock.now()
            pauses.append(pause)
            assert capture.reason("cap") == "RetryingLater"
            capture.clock.advance(pause - 0.01)
            capture.step()
            assert capture.workers.assigned == {}, "started before its time"
            capture.clock.advance(0.02)
    assert [round(pause, -1) for pause in pauses] == [10, 20, 40, 80] or all(
        10 * 2**n <= pause <= 11 * 2**n for n, pause in enumerate(pauses)
    )
    assert len(pauses) == 4
    assert capture.get("cap").stalled and capture.jobs()[0].attempts == 5


def test_a_transient_failure_that_passes_leaves_no_trace_in_the_status(capture):
    capture.workers.failures["capture"] = ("DiskFull", True)
    capture.step_until_running()
    capture.workers.complete()
    capture.workers.failures.clear()
    capture.clock.advance(12)
    assert capture.settle() == ["capture"]
    assert capture.get("cap").ready and not capture.get("cap").stalled
