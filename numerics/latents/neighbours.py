"""Neighbours of coarse latents: of all cosines of two decoders, those that are kept.

The whole matrix (17 GB for 16,384 by 262,144) is never held. One pass over it leaves, for each
coarse latent, the fine latents whose decoder rows point nearly the same way, and how many cosines
fall between fixed edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from loopscope.numerics.latents.mapping import HISTOGRAM_BINS, Indices, inverse_norms, made_unit

COSINE_FLOOR = 0.2
"""Least cosine of a neighbour: the cut-offs of interest lie above it."""
NEIGHBOURS_MAX = 4_096
"""Neighbours listed of one coarse latent, the highest cosines; half a gigabyte for 16,384."""
WAITING_PAIRS_MAX = 2**23
"""Pairs that wait to be sorted: 100 MB."""

ROWS_PER_COUNT = 64
"""Rows whose bins are made at once: 1 MB at 4,096 columns."""

Columns32 = NDArray[np.int32]
Values32 = NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """The fine latents near each of some coarse latents [rows], as the rows of a sparse matrix.

    Those of row i are ``fine[indptr[i]:indptr[i + 1]]`` with ``cosine``, falling (of equal ones
    the lower latent first). They are all with a cosine of at least ``floor`` [rows], which is
    ``COSINE_FLOOR``, and higher where more than ``NEIGHBOURS_MAX`` reach that. ``histogram``
    [rows, bins] counts all cosines in bins of equal width on [-1, 1], the last one closed.
    """

    indptr: Indices
    fine: Columns32
    cosine: Values32
    floor: Values32
    histogram: Columns32

    def of(self, row: int) -> tuple[Columns32, Values32]:
        """Return the neighbours of one row, and their cosines."""
        span = slice(int(self.indptr[row]), int(self.indptr[row + 1]))
        return self.fine[span], self.cosine[span]

    @property
    def rows(self) -> int:
        """Number of coarse latents."""
        return len(self.floor)

    @property
    def is_bounded(self) -> NDArray[np.bool_]:
        """Which rows have more neighbours than are listed, [rows]."""
        return self.floor > np.float32(COSINE_FLOOR)


def neighbours_of(
    coarse: Float[Tensor, "rows d_in"],
    fine: Float[Tensor, "fine d_in"],
    width: int,
    on_block: Callable[[int], None] = lambda done: None,
    neighbours_max: int = NEIGHBOURS_MAX,
) -> Neighbours:
    """Return the neighbours of ``coarse`` among all of ``fine``, read ``width`` rows at a time.

    Cosines are products of unit rows in float32; a row of norm zero has cosine 0 to everything.
    ``on_block`` is called with the number of fine rows that were read, after each block.
    """
    unit = coarse * inverse_norms(coarse)[:, None]
    kept = _Kept(len(coarse), neighbours_max)
    histogram = torch.zeros(len(coarse), HISTOGRAM_BINS, dtype=torch.int64)
    width = min(width, len(fine))
    space, products = fine.new_empty(width, fine.shape[1]), fine.new_empty(len(unit) * width)
    for start in range(0, len(fine), width):
        block = made_unit(fine[start : start + width], space)
        cosines = products[: len(unit) * len(block)].view(len(unit), len(block))
        torch.mm(unit, block.T, out=cosines).clamp_(-1.0, 1.0)
        on_block(start + len(block))
        kept.add(cosines, start)
        histogram += binned(cosines).cpu()
    return kept.finished(histogram.numpy().astype(np.int32))


def binned(cosines: Float[Tensor, "rows columns"]) -> Int64[Tensor, "rows bins"]:
    """Return how many cosines of each row lie in each of ``HISTOGRAM_BINS`` bins on [-1, 1].

    A cosine within float32 rounding of an edge may be counted on its other side.
    """
    on_cpu = cosines.device.type == "cpu"  # there a few rows at a time stay in cache
    parts = torch.split(cosines, ROWS_PER_COUNT) if on_cpu else (cosines,)
    space = torch.empty_like(parts[0])
    return torch.cat([_counted(part, space[: len(part)]) for part in parts])


def _counted(
    cosines: Float[Tensor, "rows columns"], space: Float[Tensor, "rows columns"]
) -> Int64[Tensor, "rows bins"]:
    """Count the bins of all rows at once; ``space`` is written over."""
    half = HISTOGRAM_BINS / 2
    torch.mul(cosines, half, out=space).add_(half).clamp_(0, HISTOGRAM_BINS - 1)
    first = torch.arange(len(space), dtype=torch.int32, device=space.device) * HISTOGRAM_BINS
    places = space.to(torch.int32).add_(first[:, None])
    counts = torch.bincount(places.flatten(), minlength=len(space) * HISTOGRAM_BINS)
    return counts.reshape(len(space), HISTOGRAM_BINS)


@dataclass
class _Kept:
    """The neighbours found so far, never many more than the rows may list."""

    rows: int
    neighbours_max: int
    _parts: list[tuple[Indices, Columns32, Values32]] = field(default_factory=list)
    _waiting: int = 0

    def __post_init__(self) -> None:
        self.floor = np.full(self.rows, COSINE_FLOOR, dtype=np.float32)
        self.cut = np.zeros(self.rows, dtype=np.bool_)

    def add(self, cosines: Float[Tensor, "rows columns"], first: int) -> None:
        """Take what reaches each row's floor from a block whose columns begin at ``first``."""
        floor = torch.from_numpy(self.floor).to(cosines.device)
        if not bool((cosines.amax(dim=1) >= floor).any()):
            return
        found = (cosines >= floor[:, None]).nonzero()
        row, column = found.T.cpu().numpy()
        values = cosines[found[:, 0], found[:, 1]].cpu().numpy()
        self._parts.append((row, (column + first).astype(np.int32), values))
        self._waiting += len(row)
        if self._waiting > WAITING_PAIRS_MAX:
            self._shorten()

    def _shorten(self) -> tuple[Indices, Columns32, Values32, Indices]:
        """Sort by row and falling cosine, keep what a row may list; raise the floors of the cut."""
        parts = [(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))]
        row, fine, cosine = (np.concatenate(one) for one in zip(*parts, *self._parts, strict=True))
        order = np.lexsort((fine, -cosine, row))
        row, fine, cosine = row[order], fine[order], cosine[order]
        indptr = np.searchsorted(row, np.arange(self.rows + 1))
        listed = np.arange(len(row)) - indptr[row] < self.neighbours_max
        cut = np.flatnonzero(np.diff(indptr) > self.neighbours_max)
        self.cut[cut] = True
        self.floor[cut] = cosine[indptr[cut] + self.neighbours_max - 1]
        row, fine, cosine = row[listed], fine[listed], cosine[listed]
        self._parts, self._waiting = [(row, fine, cosine)], len(row)
        return row, fine, cosine, np.searchsorted(row, np.arange(self.rows + 1))

    def finished(self, histogram: Columns32) -> Neighbours:
        """Return what was found; of a row that was cut all is known above its last cosine."""
        _, fine, cosine, indptr = self._shorten()
        above = np.nextafter(self.floor, np.float32(2))
        floor = np.where(self.cut, above, self.floor)
        return Neighbours(indptr.astype(np.int64), fine, cosine, floor, histogram)


def joined(parts: list[Neighbours]) -> Neighbours:
    """Return the neighbours of consecutive groups of rows as those of all of them."""
    sizes = np.concatenate([np.diff(part.indptr) for part in parts])
    return Neighbours(
        indptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        fine=np.concatenate([part.fine for part in parts]),
        cosine=np.concatenate([part.cosine for part in parts]),
        floor=np.concatenate([part.floor for part in parts]),
        histogram=np.concatenate([part.histogram for part in parts]),
    )
