"""The largest openings and samples for a time, and the power that they give, from a finished run.

Run with ``.venv/bin/python benchmarks/demo_size.py --state DIR --seconds-per-text S``. A finished
run is the pilot: its concept scores have the variances of the two primary contrasts. With one
sample an opening they cannot be split, so only openings vary. The cost of a text is measured
elsewhere (decoding, reading and scoring of one row, in all arms that are steered), and an opening
costs half a text more. Nothing of a run is changed: sizes are committed before it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import loopscope
from loopscope.numerics.statistics.power import (
    OPENING_COST,
    SAMPLES_TRIED,
    Design,
    Variances,
    cheapest_design,
    simulated_power,
    split_variance,
)
from loopscope.numerics.verdict.decision import PRIMARY

SECONDS = 240.0


@dataclass(frozen=True)
class Costs:
    """What a run costs: ``fixed`` seconds whatever its size, and seconds for each steered text."""

    fixed: float
    text: float
    arms: int

    def openings(self, samples: int, seconds: float) -> int:
        """Return how many openings of so many samples fit into the time."""
        each = self.arms * self.text * (samples + OPENING_COST)
        return max(0, int((seconds - self.fixed) / each))


def fitting(
    variances: Variances, costs: Costs, difference: float, seconds: float = SECONDS
) -> Iterator[Design]:
    """Yield the largest design of each number of samples that fits, with its power."""
    tried = SAMPLES_TRIED if variances.within is not None else (variances.samples,)
    for samples in tried:
        openings = costs.openings(samples, seconds)
        if openings < 2:
            continue
        covariance = variances.between
        if variances.within is not None:
            covariance = covariance + variances.within / samples
        power = simulated_power(covariance, variances.openings, openings, difference)
        yield Design(openings, samples, power)


def differences_of(state: Path, name: str) -> np.ndarray:
    """Return a run's primary differences in concept [contrasts, openings, samples]."""
    scores = loopscope.open(state).experiments[name].scores()
    by_arm = scores.groupby(["arm", "prompt_id", "sample"])["concept"].mean().unstack("sample")
    return np.stack(
        [(by_arm.loc[better] - by_arm.loc[worse]).to_numpy() for better, worse in PRIMARY]
    )


def main() -> None:
    """Print what fits, best first, and what power 0.8 would need."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--experiment", default="france")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--fixed-seconds", type=float, required=True)
    parser.add_argument("--seconds-per-text", type=float, required=True)
    parser.add_argument("--arms", type=int, default=7)
    parser.add_argument("--difference", type=float, default=0.15)
    given = parser.parse_args()
    pilot = differences_of(given.state, given.experiment)
    costs = Costs(given.fixed_seconds, given.seconds_per_text, given.arms)
    found = fitting(split_variance(pilot), costs, given.difference, given.seconds)
    for design in sorted(found, key=lambda each: -each.power):
        print(
            f"{design.openings} openings, {design.samples} samples: power {design.power:.2f} "
            f"to detect {given.difference:g}"
        )
    needed = cheapest_design(pilot, given.difference)
    if needed is not None:
        texts = costs.arms * costs.text * needed.openings * (needed.samples + OPENING_COST)
        print(
            f"power 0.8 needs {needed.openings} openings of {needed.samples} samples, "
            f"{costs.fixed + texts:.0f} s"
        )


if __name__ == "__main__":
    main()
