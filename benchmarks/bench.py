"""Each row of the table in docs/performance.md once, and the page written anew.

``make bench`` runs it: at most fifteen minutes on two idle cores. What is measured is kept in
``build/bench-COMMIT.json``, so a second call goes on where the first was stopped. The steps run one
after the other, each in processes of its own, on a run of ``france.yaml`` in a state folder of its
own.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/performance.md"
MARKS = ("<!-- table: written by benchmarks/bench.py -->", "<!-- end -->")
NAME = "france-620b04e"

Found = dict[str, Any]


def python(script: str, *options: str) -> Found:
    """Run a benchmark of this folder and return the JSON object that it prints last."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: Found = json.loads(done.stdout[done.stdout.index("{") :])
    return found


def france(state: Path) -> Found:
    """Run ``france.yaml`` afresh; return seconds to the first line and to the end, and the peak."""
    shutil.rmtree(state, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("loopscope")), "--state", str(state), "run"]
    began = time.monotonic()
    with subprocess.Popen(
        [*command, "benchmarks/france.yaml"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        first = time.monotonic() - began
        run.stdout.read()
    if run.returncode != 0:
        raise SystemExit(f"the run of {NAME} ended with status {run.returncode}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {"first line": first, "seconds": time.monotonic() - began, "peak GiB": peak}


def steps(state: Path) -> dict[str, Callable[[], Found]]:
    """Return what is measured, in order."""
    of_state = ("--state", str(state))
    return {
        "france": lambda: france(state),
        "control": lambda: python("control_share.py", *of_state),
        "notebook": lambda: python("notebook.py", *of_state, "--experiment", NAME),
        "decoding": lambda: python("decoding.py", "--rounds", "1", "--json"),
        "roofline": lambda: python("roofline.py", "--json"),
    }


def measured(record: Path, todo: dict[str, Callable[[], Found]]) -> dict[str, Found]:
    """Return what each step found, running those that the record does not hold."""
    found: dict[str, Found] = json.loads(record.read_text()) if record.exists() else {}
    for name, run in todo.items():
        if name not in found:
            print(f"measuring: {name}", flush=True)
            found[name] = run()
            record.write_text(json.dumps(found, indent=1))
    return found


def table(found: dict[str, Found]) -> list[str]:
    """Return the rows of the page's table."""
    run, notebook, reached = found["france"], found["notebook"], found["roofline"]["percent"]
    written = sum(notebook["wall"].values())
    differing = max(notebook["differences"].values())
    rows = [
        ("France of 620b04e, warm, to its end", f"{run['seconds']:.0f} s", "half of 620b04e's"),
        ("its first line", f"{run['first line']:.1f} s", "2 s"),
        ("control plane's share", f"{found['control']['control plane percent']:.1f} %", "3 %"),
        ("notebook against the run", f"{written / run['seconds']:.2f} times", "4 times"),
        (
            "its memory against the run's",
            f"{notebook['peak GiB'] / run['peak GiB']:.2f} times",
            "2 times",
        ),
        ("its largest difference to the run", f"{differing:.1g}", ""),
        (
            "decoding, 80 rows, against `generate`",
            f"{found['decoding']['ratio']:.2f} times",
            "4 times",
        ),
        *((f"{stage}, of its floor", f"{percent:.0f} %", "") for stage, percent in reached.items()),
    ]
    return [
        "| | measured | goal |",
        "|---|---|---|",
        *(f"| {what} | {number} | {goal} |" for what, number, goal in rows),
    ]


def written(page: str, lines: list[str]) -> str:
    """Return the page with ``lines`` between its marks. ValueError where it lacks them."""
    before, _, rest = page.partition(MARKS[0])
    _, mark, after = rest.partition(MARKS[1])
    if not mark:
        raise ValueError(f"the page lacks the marks {' and '.join(MARKS)}")
    return "\n".join([before + MARKS[0], *lines, MARKS[1] + after])


def main() -> None:
    """Measure what is not measured yet at this commit, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default="a machine that was not named")
    machine = parser.parse_args().machine
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    found = measured(build / f"bench-{commit}.json", steps(build / "bench-state"))
    when = datetime.now(UTC).date().isoformat()
    lines = [f"Measured on {when} at {commit}, {machine}.", "", *table(found)]
    PAGE.write_text(written(PAGE.read_text(), lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
