"""The heartbeat outlives a database that is busy for a while."""

import threading
import time

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state import failpoints
from loopscope.state.db import jobs
from loopscope.state.db.database import Database
from loopscope.state.db.dialect.sqlite.file import SqliteFile
from loopscope.worker.lease import Lease
from tests.simulated import new_state

PATIENCE_SECONDS = 60
BEATS_PER_LEASE = 6


def test_a_beat_that_finds_the_database_busy_is_not_the_last(tmp_path):
    database = new_state(tmp_path / "state").database
    action = Action("capture", {}, {})
    with database.write() as connection:
        job_id, _ = jobs.enqueue(connection, action, Key("Capture", "n", "n"), 1, now=time.time())
        job = jobs.claim(connection, job_id, "w", 0.0, now=0.0)
    tried = threading.Semaphore(0)

    def count(name):
        if name == "heartbeat":
            tried.release()

    def beats(number):
        return all(tried.acquire(timeout=PATIENCE_SECONDS) for _ in range(number))

    impatient = Database(SqliteFile(database.dialect.path, patience_seconds=0.001))
    lease = Lease(impatient, job_id, job.token, 0.01 * BEATS_PER_LEASE, threading.Event())
    with failpoints.handled_by(count), lease:
        with database.write():
            assert beats(3), "it goes on trying"
        assert beats(3)
    with database.read() as connection:
        found = jobs.get(connection, job_id)
    assert found.state == "running" and found.lease_expires_at > job.lease_expires_at + 1
