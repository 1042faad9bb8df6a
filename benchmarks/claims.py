"""Claims benchmark: how many jobs a second do several claimers take from one database?

Run with ``.venv/bin/python benchmarks/claims.py [--sqlite] [jobs] [claimers]`` (2,000 jobs and 8
claimers unless told otherwise), on a PostgreSQL server that it starts (``make test-cluster``
installs one) without fsync. Each claimer is a
process: it takes the write lock, looks for the oldest job that waits and claims it, until none
waits. Prints claims a second by the clock, processor seconds of all claimers together, and how
many jobs were claimed twice or never.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sqlalchemy import func, select

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state.db import jobs, tables
from loopscope.state.folder import StateFolder, keep_database_at, open_state
from tests.postgres_server import running_server

KEY, BEGIN_TOGETHER_SECONDS = Key("Capture", "default", "c"), 0.5
_OLDEST = select(func.min(tables.jobs.c.id)).where(tables.jobs.c.state == "pending")


@dataclass(frozen=True)
class Claimed:
    """What one claimer did between two moments of a clock that all share."""

    tokens: list[int]
    began: float
    ended: float
    processor_seconds: float


def fill(state: StateFolder, number: int) -> None:
    """Queue jobs of different digests."""
    with state.database.write() as connection:
        for n in range(number):
            action = Action("capture", {"n": n}, {"n": n})
            jobs.enqueue(connection, action, KEY, 1, now=float(n))


def claim_all(state: StateFolder, worker: str, begin_at: float) -> Claimed:
    """Claim until no job waits."""
    with state.database.read() as connection:  # the connection is there before the clock runs
        jobs.running(connection)
    time.sleep(max(0.0, begin_at - time.monotonic()))
    tokens, began, worked = [], time.monotonic(), time.process_time()
    while True:
        with state.database.write() as connection:
            job = connection.execute(_OLDEST).scalar_one()
            if job is None:
                break
            tokens.append(jobs.claim(connection, job, worker, 60.0, now=time.time()).token)
    return Claimed(tokens, began, time.monotonic(), time.process_time() - worked)


def measure(path: Path, number: int, claimers: int) -> dict[str, object]:
    """Let processes claim the jobs of a new state; return what they took."""
    state = open_state(path)
    fill(state, number)
    command = [sys.executable, __file__, "--claim", str(path)]
    processes = [
        subprocess.Popen([*command, f"w{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for n in range(claimers)
    ]
    for process in processes:  # each says so when it has imported and opened all
        assert process.stdout is not None
        process.stdout.readline()
    begin_at = str(time.monotonic() + BEGIN_TOGETHER_SECONDS).encode()
    found = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(begin_at + b"\n")
        process.stdin.flush()
    for process in processes:
        answer, _ = process.communicate()
        found.append(Claimed(**json.loads(answer)))
    with state.database.read() as connection:
        starts = [row.job_id for row in connection.execute(select(tables.job_starts.c.job_id))]
    state.database.close()
    tokens = [token for one in found for token in one.tokens]
    seconds = max(one.ended for one in found) - min(one.began for one in found)
    return {
        "jobs": number,
        "claimers": claimers,
        "claims": len(tokens),
        "claimsASecond": round(len(tokens) / seconds, 1),
        "processorMilliseconds": round(
            1000 * sum(one.processor_seconds for one in found) / len(tokens), 2
        ),
        "doubled": len(starts) - len(set(starts)) + len(tokens) - len(set(tokens)),
        "neverClaimed": number - len(set(starts)),
        "fewestOfOne": min(len(one.tokens) for one in found),
    }


def claimer(path: Path, name: str) -> None:
    """Be one of the processes."""
    state = open_state(path)
    print("ready", flush=True)
    print(json.dumps(asdict(claim_all(state, name, float(sys.stdin.readline())))))


def main(words: list[str]) -> None:
    """Measure once, or claim."""
    if "--claim" in words:
        claimer(Path(words[-2]), words[-1])
        return
    number, claimers, *_ = [*(int(word) for word in words if word.isdigit()), 2000, 8][:2]
    with (
        nullcontext() if "--sqlite" in words else running_server() as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder) / "state"
        if server is not None:
            keep_database_at(path, server.new_database())
        found = measure(path, number, claimers)
    print(json.dumps({"database": "SQLite" if server is None else "PostgreSQL", **found}))


if __name__ == "__main__":
    main(sys.argv[1:])
