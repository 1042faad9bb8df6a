"""Many processes write at once: nothing is lost, and nobody hears of a lock."""

import subprocess
import sys
from pathlib import Path

import pytest

from loopscope.state.db import objects, tables
from tests.integration.writer import COUNTER, KEY
from tests.simulated import new_state

ROOT = Path(__file__).parents[2]
PROCESSES, TIMES = 8, 1000


@pytest.mark.integration
def test_eight_processes_raise_the_same_numbers_a_thousand_times_each(tmp_path):
    database = new_state(tmp_path / "state").database
    with database.write() as connection:
        objects.apply(connection, KEY, {"hook": "a"}, now=0.0)
    command = [
        sys.executable,
        "-m",
        "tests.integration.writer",
        str(database.dialect.path),
        str(TIMES),
    ]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    answers = [process.communicate() for process in processes]
    assert [(errors, p.returncode) for p, (_, errors) in zip(processes, answers, strict=True)] == [
        ("", 0)
    ] * PROCESSES
    assert sum(int(conflicts) for conflicts, _ in answers) > 0, "they did get in each other's way"
    with database.read() as connection:
        record = objects.get(connection, KEY)
        counters = dict(connection.execute(tables.counters.select()).all())
        changes = objects.changes_since(connection, 0)
    assert record.status.summary == {"count": PROCESSES * TIMES}
    assert counters[COUNTER] == PROCESSES * TIMES
    assert counters["resource_version"] == record.resource_version == PROCESSES * TIMES + 1
    assert [change.resource_version for change in changes] == [
        *range(1, record.resource_version + 1)
    ]
    assert record.generation == 1
