"""Does the gate open for nothing, does it open for something, and does the mapping find the truth?

Run with ``.venv/bin/python benchmarks/planted_worlds.py RECORD [--play]``. RECORD is a JSON-lines
file; cells that it holds are not played again: a run that was stopped goes on. Without ``--play``
the table of what RECORD holds is printed. About an hour of one core.

The worlds are those of ``tests/planted.py``; ``make test`` asks a few of them. A world is asked
with the declared number of resamples where these decide: where the gate could still say GO.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import scipy.stats
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from loopscope.numerics.gate.rule import readings
from loopscope.numerics.latents.mapping import ActivationColumns, correlations, cosine_blocks
from tests.planted import CHILD, SMALL, WIDE, gate_world, planted_hierarchy

SHAPES = {"small": SMALL, "wide": WIDE}


@dataclass(frozen=True)
class Case:
    """One cell: the concept is ``rarer`` times less frequent in text than other latents."""

    shape: str
    exponent: float
    extra_children: int
    rarer: float
    worlds: int


CASES = [
    Case("wide", 0.3, 0, 3, 2500),
    Case("small", 0.0, 0, 3, 3000),
    Case("wide", 0.0, 0, 3, 2500),
    Case("small", 0.3, 0, 3, 3000),
    Case("wide", -0.3, 0, 3, 2000),
    Case("small", -0.3, 0, 3, 2000),
    Case("wide", -0.3, 3, 3, 300),
    Case("small", -0.3, 3, 3, 300),
    Case("wide", -0.3, 0, 10, 2000),
    Case("small", -0.3, 0, 10, 1000),
    Case("wide", 0.3, 3, 3, 60),
    Case("wide", 0.0, 3, 3, 60),
    Case("small", 0.3, 3, 3, 60),
    Case("small", 0.0, 3, 3, 60),
    Case("wide", -0.3, 3, 10, 60),
    Case("small", -0.3, 3, 10, 60),
    Case("small", -0.15, 0, 3, 1000),
    Case("small", 0.15, 0, 3, 1000),
]
"""In an order that says most first, should the record be read before its end."""

FIRST_SEED = 1_000_000
"""Worlds below it were looked at while rules were chosen."""


def main() -> None:
    """Play what the record lacks, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--play", action="store_true")
    parser.add_argument("--shape", choices=SHAPES, help="play the cells of this shape only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.record.touch()
    done = [json.loads(line)["case"] for line in options.record.read_text().splitlines()]
    for case in CASES:
        wanted = options.play and options.shape in (None, case.shape)
        if wanted and asdict(case) not in done:
            with options.record.open("a") as out:
                out.write(json.dumps(played(case)) + "\n")
    print(table(options.record))
    scores = [match_f1(seed) for seed in range(20)]
    print(f"mapping: F1 of matches, 20 worlds: least {min(scores):.3f}, mean {np.mean(scores):.3f}")


def played(case: Case) -> dict[str, object]:
    """Return how many worlds of a cell the gate opens, by its rules and by two weaker ones."""
    start = time.process_time()
    counted = dict.fromkeys(("go", "count", "prompts"), 0)
    for seed in range(FIRST_SEED, FIRST_SEED + case.worlds):
        world = gate_world(
            seed,
            exponent=case.exponent,
            extra_children=case.extra_children,
            rarer=case.rarer,
            shape=SHAPES[case.shape],
        )
        counted["go"] += world.says_go()
        counted["count"] += world.count_passes
        counted["prompts"] += world.passes_matched_on_prompts
    seconds = round(time.process_time() - start)
    return {
        "case": asdict(case),
        **counted,
        "first_seed": FIRST_SEED,
        "processor_seconds": seconds,
    }


def table(record: Path) -> str:
    """Return the recorded cells as a Markdown table, shares with their bounds."""
    lines = [
        "| latents | exponent | children more | rarer in text | GO | count alone | "
        "largest count, matched on prompts |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in record.read_text().splitlines():
        row = json.loads(line)
        case = Case(**row["case"])
        cells = [SHAPES[case.shape].latents, f"{case.exponent:+.2f}", case.extra_children]
        cells += [f"{case.rarer:g} times", shown(row["go"], case)]
        cells += [f"{row[name] / case.worlds:.0%}" for name in ("count", "prompts")]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def shown(count: int, case: Case) -> str:
    """Return a share with its one-sided 95 % Clopper-Pearson bound on the side that matters."""
    word, side = ("at least", "greater") if case.extra_children else ("at most", "less")
    bounds = scipy.stats.binomtest(count, case.worlds, alternative=side).proportion_ci()
    bound = bounds.low if case.extra_children else bounds.high
    return f"{count} of {case.worlds} ({count / case.worlds:.1%}, {word} {bound:.1%})"


def match_f1(seed: int) -> float:
    """Return the F1 of the reading *match* against the planted edges."""
    world = planted_hierarchy(seed)
    every = [np.arange(rows.activations.shape[1]) for rows in (world.coarse, world.fine)]
    r = correlations(*map(ActivationColumns.of, (world.coarse, world.fine)), *every)
    cosine = next(cosine_blocks(world.coarse_decoder, world.fine_decoder)).cosines.numpy()
    found = readings(cosine, r, CHILD.cosine_min, 0.1, CHILD.correlation_min) == "match"
    return float(2 * (found & world.is_child).sum() / (found.sum() + world.is_child.sum()))


if __name__ == "__main__":
    main()
