"""Do the verdict's intervals cover, and are its p-values uniform?

Run with ``.venv/bin/python benchmarks/paired_studies.py [studies]`` (default 500; two minutes).
Each simulated study has 126 openings and the arms' scores that a study has: 0 or 1 per text, two
strengths averaged, arms of one opening correlated by the opening's own difficulty. The true
difference is known because both arms are drawn from the same chances, shifted by a given amount.
Such scores come in steps, so many sign patterns tie with what was seen; the p-values that are
compared with uniform ones count ties half (mid-p), those of the verdict count them whole.
"""

from __future__ import annotations

import sys

import numpy as np
import scipy.stats

from loopscope.numerics.paired import Floats, bootstrap_interval, sign_flip

OPENINGS, STRENGTHS = 126, 2
SHIFTS = (0.0, 0.1, 0.25)


def study(generator: np.random.Generator, shift: float) -> Floats:
    """Return the paired differences over openings."""
    difficulty = generator.normal(0.0, 1.0, OPENINGS)
    base = scipy.stats.norm.cdf(difficulty - 0.3)
    better = np.clip(base + shift, 0.0, 1.0)
    scores = [generator.binomial(STRENGTHS, chance) / STRENGTHS for chance in (better, base)]
    return np.asarray(scores[0] - scores[1], dtype=np.float64)


def true_difference(shift: float) -> float:
    """Return the mean of min(p + shift, 1) − p over the population of openings."""
    grid = scipy.stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    base = scipy.stats.norm.cdf(grid - 0.3)
    return float((np.clip(base + shift, 0.0, 1.0) - base).mean())


def main() -> None:
    """Print one line per shift."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    for shift in SHIFTS:
        covered, found = 0, []
        truth = true_difference(shift)
        for number in range(studies):
            generator = np.random.Generator(np.random.Philox(key=number + int(1e6 * shift)))
            differences = study(generator, shift)
            low, high = bootstrap_interval(differences, seed=number)
            covered += low <= truth <= high
            if shift == 0.0:
                greater, less = sign_flip(differences, seed=number)
                found.append((greater + 1 - less) / 2)
        interval = scipy.stats.binomtest(covered, studies).proportion_ci()
        line = f"shift {shift:.2f}: {covered} of {studies} intervals hold {truth:.3f} "
        line += f"({100 * covered / studies:.1f} %, {100 * interval.low:.1f} to "
        print(line + f"{100 * interval.high:.1f} %)", flush=True)
        if found:
            uniform = scipy.stats.kstest(found, "uniform").pvalue
            print(f"  sign-flip p-values against uniform: Kolmogorov-Smirnov p {uniform:.2f}")


if __name__ == "__main__":
    main()
