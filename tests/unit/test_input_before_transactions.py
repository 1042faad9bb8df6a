"""Nothing slow happens while the write lock is held: no input is read, nothing is printed or run.

The interpreter itself tells of every file, process and connection that it opens. Whoever holds the
lock while a pipe or a network folder is slow takes the leases of healthy workers.
"""

import os
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from loopscope.controller.sources.folder_source import (
    RESCAN_SECONDS,
    SECOND_LOOK_SECONDS,
    FolderSource,
)
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.publication import publish
from loopscope.state.db import jobs
from loopscope.state.db.database import Database
from tests.simulated import experiment_spec, settled_experiment

SLOW = ("socket.connect", "subprocess.Popen", "os.system", "os.listdir", "os.scandir")
CODE = (".py", ".pyc", ".so", ".mako")
_watching = []


def _heard(event, arguments):
    for watch in _watching:
        watch(event, arguments)


sys.addaudithook(_heard)  # for the life of the process, and silent while nobody watches


class SlowReader:
    """Standard output that says when something is printed while the lock is held."""

    def __init__(self, stream, is_locked, seen):
        self.stream, self.is_locked, self.seen = stream, is_locked, seen

    def write(self, text):
        if self.is_locked():
            self.seen.append(("print", text))
        return self.stream.write(text)

    def __getattr__(self, name):
        return getattr(self.stream, name)


@contextmanager
def nothing_slow_with_the_lock(*own):
    """Fail if a file that is not below ``own`` is opened in a write transaction, or worse."""
    here, seen, real = threading.local(), [], Database.write
    allowed = tuple(str(place) for place in (*own, *filter(None, sys.path)))

    def is_locked():
        return getattr(here, "locked", False)

    @contextmanager
    def write(self):
        with real(self) as connection:
            here.locked = True
            try:
                yield connection
            finally:
                here.locked = False

    def watch(event, arguments):
        if not is_locked() or event not in ("open", *SLOW):
            return
        path = str(Path(str(arguments[0])).absolute())
        folder_sync = event == "open" and arguments[1] is None and Path(path).is_dir()
        if not folder_sync and not path.startswith(allowed) and not path.endswith(CODE):
            seen.append((event, path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "write", write)
        patch.setattr(sys, "stdout", SlowReader(sys.stdout, is_locked, seen))
        _watching.append(watch)
        try:
            yield
        finally:
            _watching.remove(watch)
    assert seen == []


@pytest.fixture
def running(tmp_path):
    """France settled, and its steering under way again."""
    simulation = settled_experiment(tmp_path / "state")
    simulation.apply(experiment_spec(mapping={"minCosine": 0.5}))
    simulation.step_until_running()
    return simulation


def test_no_command_reads_prints_or_runs_anything_with_the_lock_in_hand(
    loopscope, experiment, running, tmp_path
):
    path = experiment()
    with nothing_slow_with_the_lock(tmp_path / "state"):
        for words in (
            ("apply", "-f", path),
            ("apply", "-f", path, "--apply-set", "mine", "--force-conflicts"),
            ("plan", "-f", path, "-o", "plan.json"),
            ("apply", "--plan", "plan.json"),
            ("pause", "exp", "x"),
            ("resume", "exp", "x"),
            ("cancel", "exp", "france"),
            ("retry", "exp", "france"),
            ("rerun", "france"),
            ("describe", "exp", "france"),
            ("delete", "exp", "france"),
            ("delete", "-f", path),
            ("apply", "-f", path),
        ):
            code, _, err = loopscope(*words)
            assert code == 0, (words, err)
        experiment(lambda spec: spec.update(maxTokens=77))
        assert loopscope("apply", "-f", path)[:2] == (0, "experiment/x configured\n")


def test_deleting_what_a_pipe_describes_lets_others_write_meanwhile(
    loopscope, experiment, running, tmp_path
):
    path = experiment()
    pipe, text = path.parent / "pipe.yaml", path.read_text()
    loopscope("apply", "-f", path, "--root", tmp_path)
    os.mkfifo(pipe)
    ((job_id, token),) = running.workers.assigned.values()

    def write_slowly():
        with pipe.open("w") as stream:  # opens once the command reads
            with running.state.database.write() as connection:
                jobs.heartbeat(connection, job_id, token, 30.0, now=running.clock.now() + 7)
            stream.write(text)

    writer = threading.Thread(target=write_slowly, daemon=True)
    writer.start()
    assert loopscope("delete", "-f", pipe, "--root", tmp_path)[0] == 0
    writer.join()
    with running.state.database.read() as connection:
        assert jobs.head(connection, job_id).lease_expires_at == running.clock.now() + 37


def test_a_watched_folder_is_read_before_the_lock_is_taken(experiment, running, tmp_path):
    path = experiment()
    folder, other = path.parent, path.parent / "other.yaml"
    other.write_text(path.read_text().replace("name: x\n", "name: y\n", 1))
    source = FolderSource(running.state, folder, tmp_path, lambda: None, running.clock)

    def scan():
        for seconds in (RESCAN_SECONDS, SECOND_LOOK_SECONDS):
            running.clock.advance(seconds)
            source.scan_if_due()

    with nothing_slow_with_the_lock(tmp_path / "state"):
        scan()
        assert {"x", "y"} <= {record.key.name for record in running.objects()}
        path.write_text("kind: Nothing\n")
        scan()
        experiment()
        other.unlink()
        scan()
    assert "y" not in {record.key.name for record in running.objects()}


def test_no_artifact_is_hashed_with_the_lock_in_hand(running, tmp_path):
    state = running.state
    (job,) = [job for job in running.jobs() if job.state == "running"]
    store, stage = state.artifacts, job.stage
    sealed = []
    for token in (1001, 1002):
        staging = store.staging_folder(job.digest, token)
        (staging / "payload").write_bytes(b"the same bytes")
        told = {"stage": stage, "digest": job.digest, "metrics": {}, "createdAt": float(token)}
        sealed.append((staging, store.seal(staging, told)))
    store.publish(*sealed[0])
    with nothing_slow_with_the_lock(tmp_path / "state/state.db"):
        publish(state, job, *sealed[1], now=5.0)
    with state.database.read() as connection:
        assert artifact_index.get(connection, job.digest) == sealed[0][1]


def test_what_is_damaged_or_unknown_is_hashed_before_the_lock_is_taken(settled, tmp_path):
    with settled.state.database.write() as connection:
        artifact_index.forget(connection, settled.get("france-capture").wanted_digest)
    (payload, *_) = settled.artifact_folder("france-fine").glob("*.parquet")
    payload.write_bytes(bytes(payload.stat().st_size))
    with nothing_slow_with_the_lock(tmp_path / "state/state.db"):
        settled.clock.advance(11.0)
        assert settled.settle() == ["decomposition"]
    assert settled.get("france-capture").ready
