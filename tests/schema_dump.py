"""Databases of released schemas, as SQL text: ``tests/data/schemas/<revision>.sql``.

Run ``python -m tests.schema_dump`` when a schema is released: it prints the dump of the schema of
this version, with rows in every table. A dump never changes afterwards.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from loopscope.controller.settings import Settings
from loopscope.specs.keys import Key
from loopscope.specs.merging import asked_fields
from loopscope.state.db import applied, jobs, leader, objects, pauses, preemptions, shares
from loopscope.state.records import AppliedRecord, Progress, SourceRecord
from loopscope.state.share import Share
from tests.simulated import Simulation, capture_spec, settled_experiment, texts

SCHEMAS = Path(__file__).parent / "data" / "schemas"


def restore(revision: str, path: Path) -> None:
    """Write the database that a Loopscope of this schema left behind."""
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((SCHEMAS / f"{revision}.sql").read_text(encoding="utf-8"))


def lived_in(path: Path) -> Simulation:
    """Return a state folder in which something of everything happened."""
    simulation = settled_experiment(path)
    simulation.workers.failures["capture"] = ("OutOfMemory", True)
    simulation.apply(capture_spec(prompts={"target": texts("a"), "neutral": texts("b")}), "retries",
                     "Capture")  # fmt: skip
    simulation.step_until_running()
    simulation.workers.complete()
    simulation.step()
    simulation.apply(capture_spec(prompts={"target": texts("ü"), "neutral": texts("'\n")}), "runs",
                     "Capture")  # fmt: skip
    simulation.step_until_running()
    ((job_id, token),) = simulation.workers.assigned.values()
    now = simulation.clock.now()
    with simulation.state.database.write() as connection:
        seen = Progress(job_id, "Capturing", 1, 2, "prompts", now, now)
        jobs.report_progress(connection, job_id, token, seen)
    with simulation.state.database.write() as connection:
        key = Key("Experiment", "default", "france")
        uid = objects.get(connection, key).uid
        fields = asked_fields(objects.get(connection, key).spec)
        applied.record(connection, AppliedRecord(key, uid, "apply-set:demo", fields, ("team",)))
        applied.record_sources(connection, [SourceRecord("/specs/a.yaml", "hash", "[]", "[]")])
    simulation.apply(capture_spec(prompts={"target": texts("a"), "neutral": texts("c")}), "retries",
                     "Capture")  # fmt: skip
    simulation.apply(capture_spec(), "gone", "Capture")
    with simulation.state.database.write() as connection:
        objects.remove(connection, Key("Capture", "default", "gone"), now=now)
        pauses.pause(connection, "stage/steering", now=now)
        leader.announce(connection, "1@1.00", Settings().to_json(), now=now)
        leader.note_worker(connection, "worker-1", "cpu", "m")
    with simulation.state.database.write() as connection:
        (waits,) = [job for job in jobs.listed(connection) if job.state == "pending"]
        classes = ("urgent 10", "low -6")
        preemptions.ask(connection, job_id, token, waits.id, classes, now=now)
    with simulation.state.database.write() as connection:
        job = jobs.get(connection, job_id)
        shares.note_maker(connection, "worker-1", "AVX2")
        share = Share(0, job_id, 1, 1, "AVX2", job.digest)
        shares.add(connection, job, share, job.payload, now=now)
    return simulation


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        simulation = lived_in(Path(folder) / "state")
        with closing(sqlite3.connect(simulation.state.database.dialect.path)) as connection:
            sys.stdout.writelines(f"{line}\n" for line in connection.iterdump())


if __name__ == "__main__":
    main()
