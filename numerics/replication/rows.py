"""Differences of two captures of the same prompts: what turns the rows of one into the other's.

Each candidate is fitted and judged by what it leaves: ‖left‖ / ‖difference‖ over all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Relation = Literal["same", "centred", "scaled", "shifted", "rounded", "other"]

SAME_MAX = 1e-4
"""Largest difference of two rows, relative to their length, that is rounding of float32."""
ROUNDED_MAX = 0.05
"""The same that may be rounding of a lower precision, through all layers."""
EXPLAINED_MAX = 0.05
"""What an explanation may leave of the difference."""


@dataclass(frozen=True)
class RowRelation:
    """What relates two sets of rows, the largest relative difference of a row, and the scale.

    ``differing`` [rows] is true where two rows are not the same; ``scale`` is that of *scaled*,
    1 otherwise.
    """

    word: Relation
    largest: float
    differing: Bools
    scale: float = 1.0


def row_differences(first: Floats, second: Floats) -> Floats:
    """Return ‖b − a‖ / max(‖a‖, ‖b‖) of each pair of rows [rows, width]; 0 where both are 0."""
    lengths = np.maximum(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1))
    apart = np.linalg.norm(second - first, axis=1)
    return np.asarray(np.divide(apart, lengths, out=np.zeros_like(apart), where=lengths > 0))


def row_relation(first: Floats, second: Floats) -> RowRelation:
    """Return what turns ``first`` into ``second``, both [rows, width], with rows in one order.

    *centred*: each row without its mean over the width, as when a model's writing weights are
    centred. *scaled*: by one number. *shifted*: by one vector. *rounded*: nothing but noise of a
    few percent. Either way round counts for *centred*.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    apart = row_differences(first, second)
    differing = apart > SAME_MAX
    largest = float(apart.max(initial=0.0))
    if not differing.any():
        return RowRelation("same", largest, differing)
    raw = float(np.linalg.norm(second - first))
    scale = float((first * second).sum() / (first * first).sum())
    word: Relation = "rounded" if largest <= ROUNDED_MAX else "other"
    if _explains(_centred(first), second, raw) or _explains(_centred(second), first, raw):
        word = "centred"
    elif _explains(scale * first, second, raw):
        return RowRelation("scaled", largest, differing, scale)
    elif len(first) > 1 and _explains(first + (second - first).mean(axis=0), second, raw):
        word = "shifted"
    return RowRelation(word, largest, differing)


def _centred(rows: Floats) -> Floats:
    return np.asarray(rows - rows.mean(axis=1, keepdims=True))


def _explains(made: Floats, wanted: Floats, raw: float) -> bool:
    return bool(np.linalg.norm(wanted - made) <= EXPLAINED_MAX * raw)
