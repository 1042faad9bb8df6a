"""Corrections of p-values for the number of tests; NaN does not count as one and stays NaN."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def benjamini_hochberg(p_value: Floats) -> Floats:
    """Return the q-values of the tested entries (p not NaN); NaN stays NaN and does not count.

    Benjamini and Hochberg 1995, the step-up procedure: q_i = min over j >= i of p_j m / j.
    """
    q_value = np.full(p_value.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p_value))
    order = tested[np.argsort(p_value[tested], kind="stable")]
    scaled = p_value[order] * order.size / np.arange(1, order.size + 1)
    q_value[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q_value


def holm(p_value: Floats) -> Floats:
    """Return the adjusted p-values that control any false claim among all entries.

    Holm 1979, the step-down procedure: max over j <= i of p_j (m - j + 1). An entry that could
    not be tested (NaN) counts as a test that failed: it stays NaN and is part of m.
    """
    tested = np.flatnonzero(~np.isnan(p_value))
    order = tested[np.argsort(p_value[tested], kind="stable")]
    adjusted = np.full(p_value.shape, np.nan)
    scaled = p_value[order] * (p_value.size - np.arange(order.size))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def exceedance(draws: NDArray[np.number], observed: float) -> float:
    """Return the Monte Carlo p of ``observed``, never 0 (Phipson and Smyth 2010)."""
    return float((1 + (draws >= observed).sum()) / (1 + len(draws)))
