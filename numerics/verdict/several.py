"""Several verdicts at once: the words that survive a joint correction, and one pooled row.

A cell is one verdict of many: of a sweep, of a folder, of a study over concepts. Each word is
corrected over all cells by Holm's procedure (1979), which holds whatever the cells share: with
probability 0.975 no Supported is false, and no Refuted; with 0.95 no NoPracticalDifference. A cell
without an answer yet, or without a test, counts among them, so that a word does not change because
another cell ended.

The pooled row is the mean over cells of ``pooling``, which says how it is found. Cells that are
scored on the same texts may err alike: their errors are added as if they were one, the worst that
can be.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from loopscope.numerics.statistics.multiple_tests import holm
from loopscope.numerics.verdict.pooling import CELLS_MIN as CELLS_MIN
from loopscope.numerics.verdict.pooling import Interval as Interval
from loopscope.numerics.verdict.pooling import mean_over_cells as mean_over_cells
from loopscope.numerics.verdict.words import (
    LEVEL_EQUIVALENCE,
    LEVEL_ONE_SIDED,
    SINGLES,
    WordP,
    either,
    word_of,
)

METHOD = "Holm"
_LEVELS = {
    "Supported": ("supported", LEVEL_ONE_SIDED),
    "Refuted": ("refuted", LEVEL_ONE_SIDED),
    "NoPracticalDifference": ("no_difference", LEVEL_EQUIVALENCE),
}


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
        name: mean_over_cells(
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
