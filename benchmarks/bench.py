"""Each row of the table in docs/performance.md once, and the page written anew.

``make bench`` runs it: at most fifteen minutes on two idle cores. What is measured is kept in
``build/bench-COMMIT.json``, so a second call goes on where the first was stopped, and the page
holds what is known. The steps run one after the other, each in processes of its own, on a run of
``france.yaml`` in a state folder of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from then import Found, now, then

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/performance.md"
MARKS = ("<!-- table: written by benchmarks/bench.py -->", "<!-- end -->")
WIDE = ("--coarse", "2048", "--fine", "65536")
"""Latents that fit into the quarter of an hour; ``bench_full.py`` takes Gemma Scope's own."""
NAME = "france-620b04e"
FLOORS = {
    "output head, 20 rows": "50 %",
    "output head, 80 rows": "80 %",
    "decode step, 80 rows": "70 %",
}
"""The share of a floor that is wanted, by the stages of ``roofline.py``."""

Row = tuple[str, str, str]


def python(script: str, *options: str) -> Found:
    """Run a benchmark of this folder and return the JSON object that it prints last."""
    program = [script] if script == "-m" else [str(ROOT / "benchmarks" / script)]
    command = [sys.executable, *program, *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: Found = json.loads(done.stdout[done.stdout.index("{") :])
    return found


def steps(build: Path, openings: int = 0) -> dict[str, Callable[[], Found]]:
    """Return what is measured, in order; with fewer openings than all those of the example."""
    of_state = ("--state", str(build / "bench-state"))
    return {
        "france": lambda: now(build, openings),
        "then": lambda: then(build, openings),
        "control": lambda: python("control_share.py", *of_state),
        "notebook": lambda: python("notebook.py", *of_state, "--experiment", NAME),
        "decoding": lambda: python("decoding.py", "--rounds", "1", "--json"),
        "roofline": lambda: python("roofline.py", "--json"),
        "wide": lambda: wide(build / "bench-wide", *WIDE),
    }


def wide(folder: Path, *options: str) -> Found:
    """Run ``wide_dictionaries.py`` in a new folder, which vanishes again."""
    shutil.rmtree(folder, ignore_errors=True)
    return python("-m", "benchmarks.wide_dictionaries", "--folder", str(folder), "--json", *options)


def measured(
    record: Path,
    todo: dict[str, Callable[[], Found]],
    on_found: Callable[[dict[str, Found]], None] = lambda found: None,
) -> dict[str, Found]:
    """Return what each step found, running those that the record does not hold.

    ``on_found`` is called with all that is known after each of them.
    """
    found: dict[str, Found] = json.loads(record.read_text()) if record.exists() else {}
    for name, run in todo.items():
        if name not in found:
            print(f"measuring: {name}", flush=True)
            found[name] = run()
            record.write_text(json.dumps(found, indent=1))
            on_found(found)
    return found


def table(found: dict[str, Found]) -> list[str]:
    """Return the page's table: the rows of the steps that were measured."""
    return [
        "| | measured | goal |",
        "|---|---|---|",
        *(f"| {what} | {number} | {goal} |" for what, number, goal in rows(found)),
    ]


def rows(found: dict[str, Found]) -> Iterator[Row]:
    """Yield what each measured step found, and what is wanted of it."""
    run, notebook = found.get("france"), found.get("notebook")
    if run is not None:
        yield "France of 620b04e, warm, to its end", f"{run['seconds']:.0f} s", ""
        yield "its first line", f"{run['first line']:.1f} s", "2 s"
    if run is not None and "then" in found:
        yield from ratios("it against commit 620b04e", run, found["then"], "0.5")
    if "control" in found:
        share = found["control"]["control plane percent"]
        yield "control plane's share", f"{share:.1f} %", "3 %"
    if run is not None and notebook is not None:
        longer = {
            "seconds": sum(notebook["wall"].values()),
            "processor": sum(notebook["processor"].values()),
        }
        larger = notebook["peak GiB"] / run["peak GiB"]
        yield from ratios("notebook against the run", longer, run, "4 times")
        yield "its memory against the run's", f"{larger:.2f} times", "2 times"
        differing = max(notebook["differences"].values())
        yield "its largest difference to the run", f"{differing:.1g}", ""
    if "decoding" in found:
        ratio = found["decoding"]["ratio"]
        yield "decoding, 80 rows, against `generate`", f"{ratio:.2f} times", "4 times"
    for stage, percent in found.get("roofline", {}).get("percent", {}).items():
        yield f"{stage}, of its floor", f"{percent:.0f} %", FLOORS.get(stage, "")
    if "wide" in found:
        yield from wide_rows("2,048 by 65,536", found["wide"]["stages"])


def ratios(what: str, one: Found, other: Found, goal: str) -> list[Row]:
    """Return how long one took, as a multiple of another: by the clock, and of the processor."""
    return [
        (what, f"{one['seconds'] / other['seconds']:.2f} times", goal),
        (f"{what}, processor time", f"{one['processor'] / other['processor']:.2f} times", ""),
    ]


def wide_rows(size: str, stages: Found) -> list[Row]:
    """Return what two dictionaries of this size take, over two concepts."""
    peak = max(stage["anonymous MiB"] for stage in stages.values()) / 1024
    return [
        (
            f"geometry, {size}",
            f"{stages['geometry']['seconds']:.0f} s, {stages['geometry']['percent']:.0f} % of a "
            "product's rate",
            "80 %",
        ),
        (f"next mapping, {size}", f"{stages['mapping second']['seconds']:.1f} s", "5 s"),
        (f"most anonymous memory of a stage, {size}", f"{peak:.2f} GiB", "1.5 GB"),
    ]


def written(page: str, lines: list[str], marks: tuple[str, str] = MARKS) -> str:
    """Return the page with ``lines`` between its marks. ValueError where it lacks them."""
    before, _, rest = page.partition(marks[0])
    _, mark, after = rest.partition(marks[1])
    if not mark:
        raise ValueError(f"the page lacks the marks {' and '.join(marks)}")
    return "\n".join([before + marks[0], *lines, marks[1] + after])


def commit_now() -> str:
    """Return the commit that is checked out, in short."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


def main() -> None:
    """Measure what is not measured yet at this commit, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default="a machine that was not named")
    parser.add_argument("--openings", type=int, default=0, help="of the example's; 0: all")
    arguments = parser.parse_args()
    commit, openings = commit_now(), arguments.openings
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    todo = steps(build, openings)
    cut_to = f"-{openings}-openings" if openings else ""

    def write(found: dict[str, Found]) -> None:
        when = datetime.now(UTC).date().isoformat()
        some = "" if len(found) == len(todo) else f" ({len(found)} of {len(todo)} steps)"
        few = f", the France example cut to {openings} openings" if openings else ""
        head = f"Measured on {when} at {commit}{some}, {arguments.machine}{few}."
        PAGE.write_text(written(PAGE.read_text(), [head, "", *table(found)]))

    found = measured(build / f"bench-{commit}{cut_to}.json", todo, write)
    write(found)
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
