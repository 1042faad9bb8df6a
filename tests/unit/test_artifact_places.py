"""The place of an artifact: who gets it, what is durable in it, and what lies beside it."""

import shutil

import pytest

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state import failpoints
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.consistency import compare
from loopscope.state.artifacts.publication import publish
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.db import jobs
from tests.fake_worker import FakeWorker
from tests.moments import power_fails, somebody
from tests.simulated import Crash, Simulation, new_state
from tests.simulation.faulty_disk import FaultyDisk

KEY = Key("Capture", "default", "cap")
ACTION = Action("capture", {"hook": "a"}, {"hook": "a"})


class Queue:
    """Jobs of one digest, one after the other; each is done by a worker of its own."""

    def __init__(self, state):
        self.state, self.now = state, 10.0

    def claimed(self):
        self.now += 1
        with self.state.database.write() as connection:
            job_id, _ = jobs.enqueue(connection, ACTION, KEY, 1, now=self.now)
            return jobs.claim(connection, job_id, "w", 30.0, now=self.now)

    def sealed(self, job, data):
        staging = self.state.artifacts.staging_folder(job.digest, job.token)
        (staging / "tables").mkdir()
        (staging / "tables" / "rows.bin").write_bytes(data)
        told = {"stage": job.stage, "digest": job.digest, "metrics": {}, "createdAt": self.now}
        return staging, self.state.artifacts.seal(staging, told)

    def publish(self, data):
        job = self.claimed()
        publish(self.state, job, *self.sealed(job, data), now=self.now)

    def known(self):
        with self.state.database.read() as connection:
            return artifact_index.get(connection, ACTION.digest)

    def bytes(self):
        folder = self.state.artifacts.folder("capture", ACTION.digest)
        return (folder / "tables" / "rows.bin").read_bytes()


@pytest.fixture
def queue(tmp_path):
    return Queue(new_state(tmp_path / "state"))


@pytest.fixture
def disk(tmp_path):
    """A disk that keeps only what was forced to it; what is there when it is made is kept."""

    def make():
        return FaultyDisk(tmp_path)

    return make


# -- whose bytes lie there -------------------------------------------------------------------


def test_of_two_jobs_with_other_bytes_the_later_has_the_place_and_the_first_is_set_aside(queue):
    queue.publish(b"first")
    queue.publish(b"other")
    assert queue.bytes() == b"other"
    queue.state.artifacts.verify(queue.known())
    (aside,) = (queue.state.artifacts.root / ".quarantine" / "capture").iterdir()
    assert (aside / "tables" / "rows.bin").read_bytes() == b"first"


def test_of_two_jobs_with_the_same_bytes_the_first_keeps_the_place_and_the_index_says_so(queue):
    queue.publish(b"rows")
    first = queue.known()
    queue.publish(b"rows")
    assert queue.known() == first
    queue.state.artifacts.verify(first)
    assert not (queue.state.artifacts.root / ".quarantine").exists()
    assert list((queue.state.artifacts.root / ".staging").iterdir()) == []


def test_a_worker_that_lost_its_job_changes_nothing_about_the_place(queue):
    queue.publish(b"rows")
    before, job = queue.known(), queue.claimed()
    sealed = queue.sealed(job, b"late")
    with queue.state.database.write() as connection:
        jobs.cancel(connection, job.id, "Superseded", "an edit", now=queue.now)
    with pytest.raises(jobs.Fenced):
        publish(queue.state, job, *sealed, now=queue.now)
    assert queue.known() == before and queue.bytes() == b"rows"


def test_a_worker_that_was_stopped_before_it_published_leaves_what_another_published_meanwhile(
    queue,
):
    """On a server it can lose its transaction while it is stopped, and goes on where it was."""
    job = queue.claimed()
    staging, record = queue.sealed(job, b"late")
    store = queue.state.artifacts
    earlier = store.prepare(staging, record)
    with queue.state.database.write() as connection:
        jobs.cancel(connection, job.id, "Superseded", "an edit", now=queue.now)
    queue.publish(b"rows")
    with pytest.raises(OSError, match="another attempt"):
        store.publish(staging, record, earlier)
    assert queue.bytes() == b"rows"
    store.verify(queue.known())


def test_a_worker_that_was_stopped_after_it_published_removes_no_shards_of_the_next(queue):
    def made_again(name):
        if name == "artifact-committed":
            with queue.state.database.write() as connection:
                artifact_index.forget(connection, ACTION.digest)
            again = queue.claimed()
            shards = queue.state.artifacts.shards(again.digest)
            shards.seal("part", lambda part: part.write_bytes(b"piece"))

    with failpoints.handled_by(made_again):
        queue.publish(b"rows")
    assert queue.state.artifacts.shards(ACTION.digest).names() == ["part"]


# -- durable in its place ----------------------------------------------------------------------


def copied_in(queue, tmp_path):
    """Somebody puts an artifact into its place by hand, from a backup, and syncs nothing."""
    queue.publish(b"rows")
    folder = queue.state.artifacts.folder("capture", ACTION.digest)
    shutil.move(folder, tmp_path / "backup")
    with queue.state.database.write() as connection:
        artifact_index.forget(connection, ACTION.digest)
    return lambda: shutil.copytree(tmp_path / "backup", folder)


def test_what_a_worker_published_survives_a_power_cut_with_the_folders_in_it(queue, disk):
    faulty = disk()
    with faulty.watched():
        queue.publish(b"rows")
        faulty.cut_power(lambda: False)
    assert queue.bytes() == b"rows"
    queue.state.artifacts.verify(queue.known())


def test_what_was_copied_in_is_forced_to_the_disk_before_it_is_taken_over(queue, tmp_path, disk):
    copy = copied_in(queue, tmp_path)
    faulty = disk()
    with faulty.watched():
        copy()
        (found,) = compare(queue.state).findings
        assert found.problem == "ArtifactUnindexed"
        found.repair(queue.state, 20.0)
        faulty.cut_power(lambda: False)
    queue.state.artifacts.verify(queue.known())


def test_what_was_copied_in_is_forced_to_the_disk_before_a_worker_relies_on_it(
    queue, tmp_path, disk
):
    copy = copied_in(queue, tmp_path)
    faulty = disk()
    with faulty.watched():
        copy()
        queue.publish(b"rows")
        faulty.cut_power(lambda: False)
    queue.state.artifacts.verify(queue.known())


def test_a_controller_forces_to_the_disk_what_it_takes_over(tmp_path, disk):
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    simulation.settle()
    folder = simulation.artifact_folder("france-fine")
    digest = folder.name
    shutil.move(folder, tmp_path / "backup")
    with simulation.state.database.write() as connection:
        artifact_index.forget(connection, digest)
    faulty = disk()
    with faulty.watched():
        shutil.copytree(tmp_path / "backup", folder)
        assert simulation.resync() == []
        faulty.cut_power(lambda: False)
    with simulation.state.database.read() as connection:
        simulation.state.artifacts.verify(artifact_index.get(connection, digest))


@pytest.mark.parametrize("nth", range(1, 4))
def test_the_next_worker_makes_durable_what_a_power_cut_left_half_durable(queue, disk, nth):
    """The first worker dies at one of the syncs of the place, after its rename."""
    job = queue.claimed()
    sealed = queue.sealed(job, b"rows")
    faulty = disk()
    with faulty.watched():
        with (
            somebody(power_fails, at="fsync", nth=nth) as cut,
            pytest.raises(Crash),
        ):
            publish(queue.state, job, *sealed, now=queue.now)
        assert cut
        with queue.state.database.write() as connection:
            jobs.release(connection, job.id, job.token)
        queue.publish(b"rows")
        faulty.cut_power(lambda: False)
    queue.state.artifacts.verify(queue.known())


# -- beside it ---------------------------------------------------------------------------------


def staged(simulation):
    return {path.name for path in (simulation.state.artifacts.root / ".staging").iterdir()}


def test_a_resync_leaves_a_running_job_its_staging_and_removes_what_others_left(capture):
    capture.step_until_running()
    (lost,) = capture.jobs()
    with capture.state.database.write() as connection:
        jobs.release(connection, lost.id, lost.token)
    capture.workers.assigned.clear()
    capture.step_until_running()
    (job,) = capture.jobs()
    worker = FakeWorker(capture.state, capture.clock, job.id, job.token)
    steps = worker.steps()
    while next(steps) != "publish":
        if not any(path.is_file() for path in capture.state.artifacts.root.rglob("*")):
            continue
        capture.state.artifacts.staging_folder(job.digest, lost.token)
        (capture.state.artifacts.root / ".staging" / "odd-name").mkdir(exist_ok=True)
        capture.clock.advance(capture.settings.resync_seconds + 1)
        worker.heartbeat()
        capture.step()
        assert staged(capture) == {f"{job.digest}-{job.token}"}
    for _ in steps:
        pass
    assert worker.outcome == "succeeded"
    capture.step()
    assert capture.get("cap").ready


def test_a_resync_leaves_a_running_job_its_shards_although_its_artifact_is_known(capture):
    """As when a job that failed is retried by hand beside an artifact that was taken over."""
    capture.settle()
    (done,) = capture.jobs()
    with capture.state.database.write() as connection:
        again = jobs.retry(connection, done.id, now=capture.clock.now())
    capture.step_until_running()
    for digest in (done.digest, "e" * 64):
        (capture.state.artifacts.work_folder(digest) / "shard").mkdir(parents=True)
    capture.clock.advance(capture.settings.resync_seconds + 1)
    capture.step()
    assert [job.state for job in capture.jobs() if job.id == again] == ["running"]
    assert capture.state.artifacts.work_folder(done.digest).exists()
    capture.workers.complete()
    capture.resync()
    assert not capture.state.artifacts.work_folder(done.digest).exists()
    assert capture.state.artifacts.work_folder("e" * 64).exists(), "for the collection to judge"


def test_a_link_in_the_place_of_an_artifact_is_set_aside_by_the_next_worker(queue, tmp_path):
    queue.publish(b"rows")
    folder = queue.state.artifacts.folder("capture", ACTION.digest)
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Corrupt):
        queue.state.artifacts.verify(queue.known())
    queue.publish(b"rows")
    assert not folder.is_symlink()
    queue.state.artifacts.verify(queue.known())
