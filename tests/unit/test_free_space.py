"""A disk that is full or nearly full: jobs wait, say so, lose nothing and go on by themselves."""

from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError

import loopscope.worker.stages.capture.stage
from loopscope.controller.jobs.limits import below_floor
from loopscope.controller.settings import Settings
from loopscope.state.db import jobs
from loopscope.state.failures import TerminalFailure, TransientFailure
from loopscope.views.jobs import job_detail
from loopscope.worker.failing import failure_of
from loopscope.worker.lease import Lease
from loopscope.worker.runner import Runner
from loopscope.worker.stop import StopRequest
from tests.simulated import Simulation, capture_spec

FLOOR_BYTES = 1000


@pytest.fixture
def capture(tmp_path):
    simulation = Simulation(tmp_path / "state", free_space_floor_bytes=FLOOR_BYTES)
    simulation.apply(capture_spec(), "cap", "Capture")
    return simulation


def free(simulation: Simulation, free_bytes: int) -> None:
    simulation.controller.starter.free_bytes = lambda: free_bytes


# -- the floor ------------------------------------------------------------------------


def test_as_much_as_the_floor_is_enough_and_a_byte_less_is_not():
    assert below_floor(1000, 1000) is None
    message = below_floor(999, 1000)
    assert message is not None and "999 bytes are free" in message and "1,000" in message


def test_no_floor_means_that_nothing_is_held_back():
    assert below_floor(0, 0) is None


def test_below_the_floor_no_job_starts_and_the_object_says_why(capture):
    free(capture, FLOOR_BYTES - 1)
    for _ in range(3):
        capture.step()
        capture.clock.advance(1)
    assert capture.workers.assigned == {}
    assert capture.reason("cap") == "LowDiskSpace"
    assert "999 bytes are free" in capture.words()["cap"]
    assert not capture.get("cap").stalled
    (job,) = capture.jobs()
    assert "LowDiskSpace" in job_detail(job, None, now=0.0)


def test_waiting_for_space_writes_nothing_more(capture):
    free(capture, FLOOR_BYTES - 1)
    capture.step()
    capture.step()
    before = capture.rows()
    for free_bytes in (998, 5, 0):
        free(capture, free_bytes)
        capture.clock.advance(1)
        capture.step()
    assert capture.rows() == before


def test_when_space_returns_the_job_starts_by_itself(capture):
    free(capture, 0)
    capture.step()
    capture.step()
    free(capture, FLOOR_BYTES)
    assert capture.settle() == ["capture"]
    assert capture.get("cap").ready
    assert [(job.state, job.attempts, job.losses) for job in capture.jobs()] == [
        ("succeeded", 0, 0)
    ]


def test_jobs_that_wait_for_a_slot_no_longer_claim_to_wait_for_space(tmp_path):
    simulation = Simulation(tmp_path / "state", free_space_floor_bytes=FLOOR_BYTES)
    for number in range(3):
        spec = capture_spec(hook=f"blocks.{number}.hook_resid_post")
        simulation.apply(spec, f"cap-{number}", "Capture")
    free(simulation, 0)
    simulation.step()
    simulation.step()
    assert {simulation.reason(f"cap-{n}") for n in range(3)} == {"LowDiskSpace"}
    free(simulation, FLOOR_BYTES)
    simulation.step_until_running()
    simulation.step()
    assert sorted(simulation.reason(f"cap-{n}") for n in range(3)) == [
        "JobPending",
        "JobPending",
        "JobRunning",
    ]
    assert simulation.settle() == ["capture"] * 3


def test_a_running_job_goes_on_below_the_floor(capture):
    capture.step_until_running()
    free(capture, 0)
    assert capture.settle() == ["capture"]


# -- a stage that finds the disk full ---------------------------------------------------


def test_a_full_disk_is_waited_out_for_longer_than_all_attempts_last(capture):
    for _ in range(20):
        capture.step_until_running()
        run_with(capture, OSError(errno.ENOSPC, "No space left on device"))
        capture.step()
        assert capture.reason("cap") == "DiskFull"
        assert "bytes are free at" in capture.words()["cap"]
        assert not capture.get("cap").stalled
        capture.clock.time = capture.jobs()[0].not_before
    assert [(job.attempts, job.losses) for job in capture.jobs()] == [(0, 0)]
    assert capture.settle() == ["capture"]


def run_with(simulation: Simulation, error: Exception) -> None:
    """Let the worker's own code run the job that was handed out; its stage ends in ``error``."""

    def stage(payload, context, out):
        raise error

    _, (job_id, token) = simulation.workers.assigned.popitem()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loopscope.worker.stages.capture.stage, "run", stage)
        with Lease(
            simulation.state.database, job_id, token, 30.0, StopRequest(lambda: None)
        ) as lease:
            Runner(simulation.state, "cpu").run(job_id, token, lease)
    simulation.workers._ended.append(job_id)


def full_inside_a_loader() -> TerminalFailure:
    """What a loader makes of a disk that is full when it unpacks a model."""
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise TerminalFailure("InputChanged", f"package x: {error}") from None
    except TerminalFailure as failure:
        return failure


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        full_inside_a_loader(),
    ],
    ids=["space", "quota", "safetensors", "a loader"],
)
def test_every_library_has_its_own_words_for_a_full_disk(error, tmp_path):
    failure = failure_of(error, tmp_path)
    assert isinstance(failure, TransientFailure)
    assert failure.reason == "DiskFull"


def test_a_moment_without_file_descriptors_is_no_missing_model(tmp_path):
    try:
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError as error:
            raise TerminalFailure("InputChanged", f"model cannot be read: {error}") from None
    except TerminalFailure as failure:
        assert failure_of(failure, tmp_path).reason == "InputOutputError"


def test_what_is_wrong_with_a_file_itself_stays_with_a_human(tmp_path):
    missing = TerminalFailure("InputMissing", "gone")
    missing.__context__ = FileNotFoundError(errno.ENOENT, "gone")
    assert failure_of(missing, tmp_path) is missing
    odd = failure_of(ZeroDivisionError("odd"), tmp_path)
    assert isinstance(odd, TerminalFailure) and odd.reason == "UnexpectedError"


def test_the_end_of_a_job_is_written_as_soon_as_the_database_can_be(capture, monkeypatch):
    capture.step_until_running()
    refused = []
    postpone = jobs.postpone

    def refuse_twice(*args, **kwargs):
        if len(refused) < 2:
            refused.append(1)
            raise TransientFailure("DiskFull", "not now")
        postpone(*args, **kwargs)

    monkeypatch.setattr("loopscope.worker.runner.WRITE_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(jobs, "postpone", refuse_twice)
    run_with(capture, OSError(errno.ENOSPC, "No space left on device"))
    (job,) = capture.jobs()
    assert (len(refused), job.state, job.reason) == (2, "pending", "DiskFull")


def test_the_floor_of_a_controller_is_what_its_settings_say(tmp_path):
    assert Settings().free_space_floor_bytes == 2**30
