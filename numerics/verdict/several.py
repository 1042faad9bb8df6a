"""Several verdicts at once: the words that survive a joint correction, and one pooled row.

A cell is one verdict of many: of a sweep, of a folder, of a study over concepts. Each word is
corrected over all cells by Holm's procedure (1979), which holds whatever the cells share: with
probability 0.975 no Supported is false, and no Refuted; with 0.95 no NoPracticalDifference. A cell
without an answer yet, or without a test, counts among them, so that a word does not change because
another cell ended.

The pooled row is that of a random-effects model: each cell has a difference of its own around a
common mean. Its variance between cells is that of DerSimonian and Laird 1986, its interval that of
Hartung and Knapp 2001 and Sidik and Jonkman 2002 with t of one less than the number of cells, never
narrower than without their factor (Röver, Knapp and Friede 2015). Cells that are scored on the same
texts may err alike: their errors are added as if they were one, the worst that can be.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.special
from numpy.typing import NDArray

from loopscope.numerics.statistics.multiple_tests import holm
from loopscope.numerics.verdict.words import (
    LEVEL_EQUIVALENCE,
    LEVEL_ONE_SIDED,
    SINGLES,
    WordP,
    either,
    word_of,
)

Floats = NDArray[np.float64]

METHOD = "Holm"
CELLS_MIN = 2
"""A correction or a pooled row over fewer is meaningless."""
Z_TWO_SIDED_95 = 1.959963984540054
_LEVELS = {
    "Supported": ("supported", LEVEL_ONE_SIDED),
    "Refuted": ("refuted", LEVEL_ONE_SIDED),
    "NoPracticalDifference": ("no_difference", LEVEL_EQUIVALENCE),
}


@dataclass(frozen=True)
class Interval:
    """A mean difference with its 95 % interval."""

    estimate: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """The standard error that the interval stands for."""
        return (self.high - self.low) / (2 * Z_TWO_SIDED_95)


@dataclass(frozen=True)
class Cell:
    """The answer of one cell: its own word (empty while there is none) and what that rests on.

    ``p`` is None where nothing was tested or an older version did not record it, ``primary`` maps
    the contrasts with the single resolutions to their intervals, ``texts`` is equal for cells that
    are scored on the same texts.
    """

    word: str
    p: WordP | None = None
    primary: Mapping[str, Interval] = field(default_factory=dict)
    texts: Hashable = None


@dataclass(frozen=True)
class Pooled:
    """The pooled row: the word for a cell like these, and the contrasts that it rests on.

    ``tau`` maps each contrast to the standard deviation of the true differences between cells.
    """

    word: str
    p: WordP
    primary: Mapping[str, Interval]
    tau: Mapping[str, float]
    cells: int


@dataclass(frozen=True)
class Mean:
    """A mean over cells with its standard error, t with ``freedom``, and ``tau`` between cells."""

    estimate: float
    error: float
    freedom: int
    tau: float

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the bounds of the mean."""
        half = float(scipy.special.stdtrit(self.freedom, (1 + confidence) / 2)) * self.error
        return self.estimate - half, self.estimate + half

    def p_above(self, value: float) -> float:
        """Return the one-sided p that the mean is above ``value``."""
        if self.error == 0:
            return float(self.estimate <= value)
        return float(scipy.special.stdtr(self.freedom, (value - self.estimate) / self.error))

    def p_below(self, value: float) -> float:
        """Return the one-sided p that the mean is below ``value``."""
        return Mean(-self.estimate, self.error, self.freedom, self.tau).p_above(-value)


def corrected(cells: Sequence[Cell]) -> list[tuple[str | None, float | None]]:
    """Return each cell's word after the correction, and the corrected p of its own word.

    A word stays or becomes Inconclusive; where there is nothing to correct (no answer yet,
    NotTestable, Inconclusive) it is the cell's own, without a p. The word is None if the p of the
    cell's own word is not recorded.
    """
    adjusted = {
        field: holm(
            np.array([math.nan if c.p is None else getattr(c.p, field) for c in cells])
        ).tolist()
        for field, _ in _LEVELS.values()
    }
    found: list[tuple[str | None, float | None]] = []
    for number, cell in enumerate(cells):
        if cell.word not in _LEVELS:
            found.append((cell.word, None))
        elif cell.p is None:
            found.append((None, None))
        else:
            field, level = _LEVELS[cell.word]
            p = adjusted[field][number]
            found.append((cell.word if p <= level else "Inconclusive", p))
    return found


def pooled(cells: Sequence[Cell], min_difference: float) -> Pooled | None:
    """Return the pooled row of the cells that were tested; None with fewer than two."""
    tested = [cell for cell in cells if len(cell.primary) == SINGLES]
    if len(tested) < CELLS_MIN:
        return None
    means = {
        name: random_effects(
            [cell.primary[name] for cell in tested], [cell.texts for cell in tested]
        )
        for name in sorted(tested[0].primary)
    }
    p = WordP(
        supported=max(mean.p_above(0.0) for mean in means.values()),
        refuted=either([mean.p_below(0.0) for mean in means.values()]),
        no_difference=max(
            *(mean.p_above(-min_difference) for mean in means.values()),
            either([mean.p_below(min_difference) for mean in means.values()]),
        ),
    )
    return Pooled(
        word=word_of(p),
        p=p,
        primary={name: Interval(mean.estimate, *mean.interval()) for name, mean in means.items()},
        tau={name: mean.tau for name, mean in means.items()},
        cells=len(tested),
    )


def random_effects(found: Sequence[Interval], texts: Sequence[Hashable]) -> Mean:
    """Return the mean over cells; ``texts`` are equal for cells whose errors may be one.

    With errors s and weights 1/(s² + τ²), normalised to w: the variance is the larger of that of
    Hartung and Knapp (its factor at least 1) and of Σ w²τ² + Σ (Σ w s)², the inner sum over the
    cells of equal texts. Raises ValueError with fewer than two cells.
    """
    if len(found) < CELLS_MIN:
        raise ValueError(f"a mean over cells needs {CELLS_MIN} of them")
    estimate = np.array([each.estimate for each in found])
    error = np.maximum(np.array([each.error for each in found]), 1e-12)
    tau_square = _between(estimate, error**2)
    weight = 1 / (error**2 + tau_square)
    mean = float(weight @ estimate / weight.sum())
    freedom = len(found) - 1
    factor = max(1.0, float(weight @ (estimate - mean) ** 2) / freedom)
    share = weight / weight.sum()
    alike = np.unique([_number(each, texts) for each in texts], return_inverse=True)[1]
    together = np.bincount(alike, weights=share * error)
    dependent = float(share @ share) * tau_square + float(together @ together)
    variance = max(factor / float(weight.sum()), dependent)
    return Mean(mean, math.sqrt(variance), freedom, math.sqrt(tau_square))


def _number(each: Hashable, texts: Sequence[Hashable]) -> int:
    return list(texts).index(each)


def _between(estimate: Floats, variance: Floats) -> float:
    """Return the variance between cells (DerSimonian and Laird 1986), at least 0."""
    weight = 1 / variance
    mean = weight @ estimate / weight.sum()
    excess = weight @ (estimate - mean) ** 2 - (len(estimate) - 1)
    return max(0.0, float(excess / (weight.sum() - weight @ weight / weight.sum())))
