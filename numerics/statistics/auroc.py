"""The area under the curve of a number that tells two sorts apart, and its interval."""

from __future__ import annotations

import numpy as np
import scipy.optimize
import scipy.special
from numpy.typing import NDArray


def average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks of ``values`` [n] from 1, equal ones with the mean of theirs; no NaN.

    As ``scipy.stats.rankdata``, whose import takes as long as the rest of a report.
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place])


def auroc_interval(
    auroc: float, target: float, neutral: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of an AUROC over these numbers of target and neutral prompts, in [0, 1].

    All values whose own standard error does not set them apart from what was found (Newcombe
    2006, method 5), the variance that of exponential scores (Hanley and McNeil 1982). So it has
    a width at 1, too: ten separated prompts a side are only a sample of prompts. NaN for NaN.
    """
    if np.isnan(auroc):
        return float("nan"), float("nan")
    quantile = float(scipy.special.ndtri((1 + confidence) / 2))
    mean_count = (target + neutral) / 2 - 1

    def apart(value: float) -> float:
        ties = (1 - value) / (2 - value) + value / (1 + value)
        variance = value * (1 - value) * (1 + mean_count * ties) / (target * neutral)
        return (value - auroc) ** 2 - quantile**2 * variance

    edge = 1e-9  # at 0 and 1 nothing strays, and the value found is a root that is none
    inner = min(max(auroc, edge), 1 - edge)
    low = 0.0 if auroc <= 0 else float(scipy.optimize.brentq(apart, 0.0, inner))
    high = 1.0 if auroc >= 1 else float(scipy.optimize.brentq(apart, inner, 1.0))
    return low, high
