"""How soon does an idle controller look, once another process wrote to its database on a server?

Run with ``.venv/bin/python benchmarks/waking.py [writes]`` (default 40), on a PostgreSQL server
that it starts (``make test-cluster`` installs one) without fsync. Two controllers in turns, each in
a thread of this process: one that the server's notices wake, and one that only asks. Prints the
seconds from a commit to the look that sees it, median and slowest, and the share of a core that
an idle controller takes.
"""

from __future__ import annotations

import json
import queue
import random
import statistics
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

from loopscope.controller.runtime import running_controller
from loopscope.controller.settings import Settings
from loopscope.state.db import objects
from loopscope.state.db.dialect.postgresql.server import PostgresSchema
from loopscope.state.db.objects import raise_counter
from loopscope.state.folder import StateFolder, keep_database_at, open_state
from tests.postgres_server import running_server

ROUNDS, IDLE_SECONDS, SETTLING_SECONDS = 2, 10.0, 2.0


COUNTER = "fencing_token"
"""What is written: a number that asks for no work."""


def counted(state: StateFolder) -> int:
    """Return what was written last."""
    with state.database.read() as connection:
        return objects.counter(connection, COUNTER)


def measure(state: StateFolder, command: StateFolder, writes: int) -> tuple[list[float], float]:
    """Return the seconds until each write was seen, and the share of a core when idle."""
    stop, looks = threading.Event(), queue.Queue[tuple[float, int]]()

    def look() -> bool:
        seen = counted(state)
        looks.put((time.monotonic(), seen))
        return stop.is_set()

    waits = []
    with running_controller(state, Settings()) as runtime:
        loop = threading.Thread(target=runtime.run_until, args=(look,))
        loop.start()
        time.sleep(SETTLING_SECONDS)
        worked = time.process_time()
        time.sleep(IDLE_SECONDS)
        share = (time.process_time() - worked) / IDLE_SECONDS
        for _ in range(writes):
            time.sleep(random.uniform(0.6, 1.6))
            with command.database.write() as connection:
                written = raise_counter(connection, COUNTER)
            wrote_at = time.monotonic()
            seen_at = next(at for at, seen in iter(looks.get, None) if seen >= written)
            waits.append(max(0.0, seen_at - wrote_at))
        stop.set()
        loop.join()
    return waits, share


def main(writes: int) -> None:
    """Print a line for each way, after all rounds."""
    waits: dict[str, list[float]] = {"woken": [], "asks": []}
    shares: dict[str, list[float]] = {"woken": [], "asks": []}
    with running_server() as server, tempfile.TemporaryDirectory() as folder:
        keep_database_at(Path(folder), server.new_database())
        command = open_state(Path(folder))
        deaf = mock.patch.object(PostgresSchema, "waking", lambda _self, _wake: nullcontext())
        for _ in range(ROUNDS):
            for way, as_it_is in (("woken", nullcontext()), ("asks", deaf)):
                with as_it_is:
                    found, share = measure(open_state(Path(folder)), command, writes // ROUNDS)
                waits[way] += found
                shares[way].append(share)
    for way, found in waits.items():
        said = {"median": round(statistics.median(found), 3), "slowest": round(max(found), 3)}
        print(json.dumps({way: said, "ofACore": [round(one, 4) for one in shares[way]]}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
