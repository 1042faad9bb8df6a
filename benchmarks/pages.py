"""Pages benchmark: what does an object cost to store and to list, against how many there are?

Run with ``.venv/bin/python benchmarks/pages.py [--postgresql] [objects ...]`` (1,000 and 10,000
unless told otherwise). Captures of ten namespaces are applied a thousand a transaction, then
listed in pages of 500 as the API lists them. Prints processor seconds of this process, and wall
time of the pages; with ``--postgresql`` on a server that it starts (``make test-cluster``
installs one). With ``--copied`` one object is applied and its row copied, for very many.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sqlalchemy import insert, select

from loopscope.specs.keys import Key
from loopscope.state.db import objects, pages, tables
from loopscope.state.folder import StateFolder, keep_database_at, open_state
from tests.postgres_server import running_server
from tests.simulated import capture_spec, texts

APPLIED_AT_ONCE, PAGE, NAMESPACES = 1000, 500, 10


def filled(state: StateFolder, number: int) -> float:
    """Apply objects; return the processor seconds that took."""
    prompts = {"target": texts("a"), "neutral": texts("b")}
    spec, began = capture_spec(prompts=prompts), time.process_time()
    for start in range(0, number, APPLIED_AT_ONCE):
        with state.database.write() as connection:
            for n in range(start, min(number, start + APPLIED_AT_ONCE)):
                key = Key("Capture", f"team-{n % NAMESPACES}", f"c{n:06d}")
                objects.apply(connection, key, {**spec, "maxTokens": n % 500 + 1}, now=float(n))
    return time.process_time() - began


def copied(state: StateFolder, number: int) -> None:
    """Fill the table with rows that differ in their names alone."""
    filled(state, 1)
    with state.database.write() as connection:
        row = dict(connection.execute(select(tables.objects)).mappings().one())
        for start in range(1, number, APPLIED_AT_ONCE):
            names = range(start, min(number, start + APPLIED_AT_ONCE))
            rows = [
                {**row, "namespace": f"team-{n % NAMESPACES}", "name": f"c{n:06d}", "uid": f"u{n}"}
                for n in names
            ]
            connection.execute(insert(tables.objects), rows)


def page_times(state: StateFolder) -> tuple[list[float], list[float]]:
    """Return wall and processor seconds of each page of all objects."""
    wall, worked, after = [], [], None
    while True:
        at, began = time.perf_counter(), time.process_time()
        with state.database.read() as connection:
            rows = pages.texts(connection, "Capture", None, after=after, rows_max=PAGE)
        wall.append(time.perf_counter() - at)
        worked.append(time.process_time() - began)
        if len(rows) < PAGE:
            return wall, worked
        after = (rows[-1].key.namespace, rows[-1].key.name)


def measure(path: Path, number: int, database: str, *, by_copying: bool = False) -> None:
    """Print one line."""
    state = open_state(path)
    try:
        applying = copied(state, number) if by_copying else filled(state, number)
        wall, worked = page_times(state)
    finally:
        state.database.close()
    stored = "copied" if applying is None else f"applied at {1e6 * applying / number:.0f} us each"
    print(
        f"{database} {number:,} objects: {stored}; "
        f"pages of {PAGE}: {1000 * statistics.median(worked):.1f} ms of the processor, "
        f"median {1000 * statistics.median(wall):.1f} ms, slowest {1000 * max(wall):.1f} ms",
        flush=True,
    )


def main(words: list[str]) -> None:
    """Measure the sizes on one kind of database."""
    on_server = "--postgresql" in words
    sizes = [int(word) for word in words if word.isdigit()] or [1_000, 10_000]
    with running_server() if on_server else nullcontext() as server:
        for number in sizes:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "state"
                if server is not None:
                    keep_database_at(path, server.new_database())
                kind = "PostgreSQL" if on_server else "SQLite"
                measure(path, number, kind, by_copying="--copied" in words)


if __name__ == "__main__":
    main(sys.argv[1:])
