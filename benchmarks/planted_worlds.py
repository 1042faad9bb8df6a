"""Does the gate open for nothing, does it open for something, and does the mapping find the truth?

Run with ``.venv/bin/python benchmarks/planted_worlds.py [worlds]`` (default 200; minutes on one
core). The worlds are those of ``tests/planted.py``; ``make test`` asks forty of them.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import scipy.stats
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from loopscope.numerics.gate import readings
from loopscope.numerics.mapping import ActivationColumns, correlations, cosine_blocks
from tests.planted import CHILD, gate_of, planted_hierarchy

RESAMPLES = 2
"""Stability is not what is asked here, and a gate that hardly asks for it opens more often."""


def main(worlds: int) -> None:
    """Print one line a question, with an exact 95 % interval for each rate."""
    torch.set_num_threads(1)
    for name, options in (
        ("null", {}),
        ("null, children rise with the firing rate", {"rate_matters": True}),
        ("three children more than others", {"extra_children": 3}),
        ("six children more than others", {"extra_children": 6}),
    ):
        found = [gate_of(seed, resamples=RESAMPLES, **options) for seed in range(worlds)]
        verdicts = Counter(answer.verdict for answer in found)
        passing = sum(answer.outcome != "fails" for answer in found)
        print(
            f"{name}: {rate(verdicts['GO'], worlds)} GO, {verdicts['INCONCLUSIVE']} INCONCLUSIVE, "
            f"{verdicts['NO-GO']} NO-GO; the count alone opens {rate(passing, worlds)}",
            flush=True,
        )
    scores = [match_f1(seed) for seed in range(20)]
    print(f"mapping: F1 of matches, 20 worlds: least {min(scores):.3f}, mean {np.mean(scores):.3f}")


def rate(count: int, of: int) -> str:
    """Return a share with its Clopper-Pearson interval."""
    interval = scipy.stats.binomtest(count, of).proportion_ci()
    return f"{count} of {of} ({count / of:.1%}, {interval.low:.1%} to {interval.high:.1%})"


def match_f1(seed: int) -> float:
    """Return the F1 of the reading *match* against the planted edges."""
    world = planted_hierarchy(seed)
    every = [np.arange(rows.activations.shape[1]) for rows in (world.coarse, world.fine)]
    r = correlations(*map(ActivationColumns.of, (world.coarse, world.fine)), *every)
    cosine = next(cosine_blocks(world.coarse_decoder, world.fine_decoder)).cosines.numpy()
    found = readings(cosine, r, CHILD.cosine_min, 0.1, CHILD.correlation_min) == "match"
    return float(2 * (found & world.is_child).sum() / (found.sum() + world.is_child.sum()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
