"""Medians of three, and how cost grows: prompts, latents, openings, experiments that share a model.

``make bench-full`` runs it over a night. What is measured is kept in
``build/bench-full-COMMIT.json``, a measurement at a time, so a second call goes on where the first
was stopped; ``--only GROWTH`` measures one growth, ``--most SIZE`` its sizes up to that one, and
``--repeats 1`` each once. The table of ``bench.py`` in docs/performance.md then holds medians, and
below it stand the growths with their pictures; a size that was not measured is named as not run.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from bench import (
    MARKS,
    PAGE,
    ROOT,
    Found,
    commit_now,
    measured,
    python,
    steps,
    table,
    wide,
    written,
)
from growth_picture import drawn

sys.path.insert(0, str(ROOT))

from tests.tiny_experiment import make_experiment

REPEATS = 3
GROWTH_MARKS = ("<!-- growth: written by benchmarks/bench_full.py -->", MARKS[1])
IMAGES = ROOT / "docs/images"


@dataclass(frozen=True)
class Growth:
    """One question of growth: sizes along an axis, and what is measured at each, in seconds."""

    name: str
    axis: str
    what: str
    sizes: tuple[int, ...]
    run: Callable[[int], Found]


def growths(build: Path) -> list[Growth]:
    """Return the growths, in order."""
    folder, state = build / "bench-wide", build / "bench-state"
    return [
        Growth(
            "prompts",
            "prompts",
            "1,024 by 16,384 latents of width 2,304, two concepts",
            (100, 1_000, 10_000),
            lambda n: stages_of(wide(folder, "--coarse=1024", "--fine=16384", f"--prompts={n}")),
        ),
        Growth(
            "latents",
            "fine latents",
            "a sixteenth as many coarse latents, width 2,304, 400 prompts, two concepts",
            (1_024, 4_096, 16_384, 65_536, 262_144),
            lambda n: stages_of(wide(folder, f"--coarse={n // 16}", f"--fine={n}")),
        ),
        Growth(
            "openings",
            "openings",
            "the steering stage of the France experiment",
            (2, 5, 10, 20),
            lambda n: {"steering": sum(profile(state, n)["wall"].values())},
        ),
        Growth(
            "experiments",
            "experiments",
            "one capture of a tiny model, mapping and steering of their own",
            (1, 10, 100, 1_000),
            lambda n: many(build / "bench-many", n),
        ),
    ]


def stages_of(found: Found) -> Found:
    """Return the seconds of the stages that grow, of what ``wide_dictionaries.py`` found."""
    kept = {
        "decomposition first-fine": "fine decomposition",
        "geometry": "geometry",
        "mapping first": "first mapping",
        "mapping second": "next mapping",
    }
    return {name: found["stages"][stage]["seconds"] for stage, name in kept.items()}


def profile(state: Path, openings: int) -> Found:
    """Return the phases of a steering stage with the first openings, on two threads."""
    if not (state / "state.db").exists():
        raise SystemExit("the openings grow on the run of `make bench`, which is not there yet")
    options = (f"--openings={openings}", "--threads=2", "--json")
    return python("steering_profile.py", str(state), *options)


def many(folder: Path, count: int) -> Found:
    """Run ``count`` experiments on one tiny model in a new folder; return seconds of each."""
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(count):
        path = make_experiment(folder, f"e{number:05d}")
        document = yaml.safe_load(path.read_text())
        document["spec"]["mapping"]["seed"] = number
        document["spec"]["steering"]["sampling"] = {"seed": number}
        path.write_text(yaml.safe_dump(document, sort_keys=False))
    command = [str(Path(sys.executable).with_name("loopscope")), "--state", str(folder / "state")]
    began = time.monotonic()
    subprocess.run(
        [*command, "run", str(folder / "specs"), "--root", str(folder)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    seconds = time.monotonic() - began
    shutil.rmtree(folder)
    return {"all": seconds, "each": seconds / count}


def plan(
    build: Path, only: str | None, most: int | None = None, repeats: int = REPEATS
) -> dict[str, Callable[[], Found]]:
    """Return every measurement by its name in the record, each ``repeats`` times."""
    todo: dict[str, Callable[[], Found]] = {}
    for number in range(repeats):
        if only is None:
            for name, run in steps(build).items():
                todo[f"{name} {number}"] = run
        for growth in growths(build):
            if only in (None, growth.name):
                for size in growth.sizes:
                    if most is None or size <= most:
                        todo[f"{growth.name} {size} {number}"] = partial(growth.run, size)
    return todo


def medians(found: Sequence[Any]) -> Any:
    """Return the same nested numbers, each the median of all."""
    if isinstance(found[0], dict):
        return {name: medians([one[name] for one in found]) for name in found[0]}
    return median(found)


def repeats_of(record: dict[str, Found], name: str) -> list[Found]:
    """Return what the repeats of a measurement found."""
    found = (record.get(f"{name} {number}") for number in range(REPEATS))
    return [one for one in found if one is not None]


def growth_lines(record: dict[str, Found], build: Path) -> list[str]:
    """Return table and picture of each growth of which something was measured."""
    lines: list[str] = []
    for growth in growths(build):
        found = {size: repeats_of(record, f"{growth.name} {size}") for size in growth.sizes}
        known = {size: medians(runs) for size, runs in found.items() if runs}
        if not known:
            continue
        names = list(next(iter(known.values())))
        series = {name: [(size, row[name]) for size, row in known.items()] for name in names}
        picture = IMAGES / f"growth-{growth.name}.svg"
        picture.write_text(drawn(series, growth.axis, "seconds"))
        lines += [
            f"Against {growth.axis} ({growth.what}), in seconds:",
            "",
            f"| {growth.axis} | {' | '.join(names)} | runs |",
            "|---" * (len(names) + 2) + "|",
            *(_growth_row(size, runs, names) for size, runs in found.items()),
            "",
            f"![Seconds against {growth.axis}](images/{picture.name})",
            "",
        ]
    return lines


def _growth_row(size: int, runs: list[Found], names: list[str]) -> str:
    row = medians(runs) if runs else {}
    cells = [f"{row[name]:.2f}" if runs else "not run" for name in names]
    return f"| {size:,} | {' | '.join(cells)} | {len(runs)} |"


def main() -> None:
    """Measure what is not measured yet at this commit, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default="a machine that was not named")
    parser.add_argument("--only", choices=[growth.name for growth in growths(Path())])
    parser.add_argument("--most", type=int, help="the largest size; default: all")
    parser.add_argument("--repeats", type=int, choices=range(1, REPEATS + 1), default=REPEATS)
    arguments = parser.parse_args()
    commit, build = commit_now(), ROOT / "build"
    build.mkdir(exist_ok=True)
    found = measured(
        build / f"bench-full-{commit}.json",
        plan(build, arguments.only, arguments.most, arguments.repeats),
    )
    when = datetime.now(UTC).date().isoformat()
    head = f"Medians of the runs, {when}, {commit}, {arguments.machine}."
    page = PAGE.read_text()
    rows = {name: repeats_of(found, name) for name in steps(build)}
    if all(len(runs) == REPEATS for runs in rows.values()):
        page = written(page, [head, "", *table({k: medians(runs) for k, runs in rows.items()})])
    page = written(page, [head, "", *growth_lines(found, build)], GROWTH_MARKS)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
