"""How soon does the live page show something, and a change, with 10,000 objects; in what memory?

Run with ``.venv/bin/python benchmarks/live_page.py [objects] [updates]`` (default 10,000 and 5;
needs the extras ``serve`` and ``page`` and a chromium on the path). One server, as a process; one
page in a browser. First paint is from the beginning of a load to the first row of the tree; an
update from the commit to the new word in the page. Beside other work the processor time says more:
the server's and the browser's together. Exit status 1 when a claim is missed.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright
from sqlalchemy import insert, select

sys.path.insert(0, str(Path(__file__).parents[1]))

from loopscope.specs.keys import Key
from loopscope.state.db import objects, tables
from loopscope.state.folder import StateFolder
from tests.simulated import experiment_spec, settled_experiment

ROUNDS = 5
PAINT_SECONDS, UPDATE_SECONDS, SERVER_BYTES = 1.0, 1.0, 200e6
PATIENCE_MS = 120_000
PAINTED = """() => new Promise((done) => {
  const shown = () => document.querySelector(".tree tbody tr");
  const look = () => shown() ? done(performance.now()) : requestAnimationFrame(look);
  look();
})"""
UPDATED = """wanted => {
  const row = document.querySelector(".tree tbody tr [data-generation]");
  return row && Number(row.dataset.generation) >= wanted;
}"""


def filled(folder: Path, number: int) -> StateFolder:
    """Return a state folder with about so many objects: one settled experiment, over and over."""
    state = settled_experiment(folder).state
    with state.database.write() as connection:
        rows = [row._asdict() for row in connection.execute(select(tables.objects))]
        copies = max(1, number // len(rows))
        for copy in range(1, copies):
            uids = {row["uid"]: str(uuid.uuid4()) for row in rows}
            connection.execute(insert(tables.objects), [_copy(row, copy, uids) for row in rows])
    return state


def _copy(row: dict[str, Any], copy: int, uids: dict[str, str]) -> dict[str, Any]:
    name = row["name"].replace("france", f"france-{copy:05}")
    owner = row["owner_name"] and row["owner_name"].replace("france", f"france-{copy:05}")
    given = {"name": name, "uid": uids[row["uid"]], "owner_name": owner}
    return {**row, **given, "owner_uid": row["owner_uid"] and uids[row["owner_uid"]]}


def served(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a server; return it and the address of its page."""
    words = ["serve", "--no-tls", "--port", "0", "--state", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "loopscope", *words], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.fullmatch(r"page: (\S+)", line.strip()):
            return process, found[1]
    raise SystemExit("the server did not start")


def first_paint(page: Page, address: str) -> float:
    """Return the seconds from the beginning of a load to the first row."""
    page.goto("about:blank")
    page.goto(address, wait_until="commit")
    return float(page.evaluate(PAINTED)) / 1000


def update(page: Page, state: StateFolder, number: int) -> tuple[float, float]:
    """Return the seconds that a commit took, and from then to the new word in the page.

    The experiment is the first in the tree. An edit that no controller has seen makes it
    Reconciling.
    """
    page.wait_for_selector("#connection[data-state=live]")
    key = Key("Experiment", "default", "france")
    began = time.monotonic()
    with state.database.write() as connection:
        spec = experiment_spec(mapping={"minCosine": 0.31 + number / 10_000})
        objects.apply(connection, key, spec, now=time.time())
        record = objects.get(connection, key)
    assert record is not None  # just stored
    stored = time.monotonic()
    page.wait_for_function(UPDATED, arg=record.generation, timeout=PATIENCE_MS)
    return stored - began, time.monotonic() - stored


def processor_seconds(server: psutil.Process) -> float:
    """Return the processor time that the server and the browser took so far."""
    browsers = [one for one in psutil.Process().children(recursive=True) if one != server]
    times = [one.cpu_times() for one in (server, *browsers)]
    return float(sum(one.user + one.system for one in times))


def main() -> int:
    """Print what was measured; return 1 when a claim is missed."""
    number, rounds = [int(word) for word in sys.argv[1:]] + [10_000, ROUNDS][len(sys.argv) - 1 :]
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary) / "state"
        state = filled(folder, number)
        process, address = served(folder)
        try:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page()
            server = psutil.Process(process.pid)
            before = processor_seconds(server)
            paints = [first_paint(page, address) for _ in range(ROUNDS)]
            between = processor_seconds(server)
            made = [update(page, state, one) for one in range(rounds)]
            after = processor_seconds(server)
            memory = server.memory_info().rss
        finally:
            process.terminate()
            process.wait()
    print(f"{number:,} objects, load {os.getloadavg()[0]:.0f}")
    print(f"first paint: median {statistics.median(paints):.2f} s, slowest {max(paints):.2f} s")
    updates, slowest_commit = [one for _, one in made], max(one for one, _ in made)
    print(
        f"{rounds} updates: median {statistics.median(updates):.2f} s, slowest {max(updates):.2f} s"
        f" (and {slowest_commit:.2f} s the slowest commit)"
    )
    for what, spent in (
        ("paint", (between - before) / ROUNDS),
        ("update", (after - between) / rounds),
    ):
        print(f"processor time a {what}: {spent:.2f} s of the server and the browser")
    print(f"server: {memory / 1e6:.0f} MB")
    kept = (
        statistics.median(paints) <= PAINT_SECONDS
        and statistics.median(updates) <= UPDATE_SECONDS
        and memory <= SERVER_BYTES
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
