"""Comparison of coarse and fine latents, in behaviour (r) and in geometry (cosine).

The full coarse by fine matrix (17 GB for 16,384 by 262,144) is never held: cosines come in
blocks, correlations are computed for the columns asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from loopscope.numerics.latents.features import RELATIVE_SPREAD_MIN
from loopscope.numerics.latents.splits import DiscoverRows, require_discover
from loopscope.numerics.statistics.multiple_tests import Floats

Indices = NDArray[np.int64]

COSINE_BYTES_MAX = 64 * 2**20
COLUMN_BYTES_MAX = 64 * 2**20
HISTOGRAM_BINS = 100
ROWS_PER_BLOCK = 8_192
ROWS_IN_CACHE = 256
"""Rows that are scaled at once: 2 MB at 2,304 numbers a row."""


@dataclass(frozen=True)
class ActivationColumns:
    """Prompt activations [prompts, latents] as columns, with float64 means and spread.

    ``group`` [prompts] numbers the group that a prompt's activations are centred in, ``mean`` is
    [groups, latents]. ``spread`` is sqrt(sum (a - mean of its group)^2) over all prompts, silent
    ones included, and exactly 0 for a latent that is constant (for instance silent) in each group.
    """

    values: scipy.sparse.csc_array
    group: Indices
    mean: Floats
    spread: Floats
    together: NDArray[np.int64] | None = None
    """The number of each prompt's group, as in ``DiscoverRows``: not what is centred in."""

    @staticmethod
    def of(rows: DiscoverRows) -> ActivationColumns:
        """Return the columns over target and neutral prompts together."""
        require_discover(rows)
        return _centred(rows.activations, np.zeros(rows.prompts, dtype=np.int64))

    @staticmethod
    def within_target(rows: DiscoverRows) -> ActivationColumns:
        """Return the columns over the target prompts alone."""
        require_discover(rows)
        targets = np.flatnonzero(rows.is_target)
        return _centred(rows.activations[targets], np.zeros(targets.size, dtype=np.int64))

    @staticmethod
    def within_condition(rows: DiscoverRows) -> ActivationColumns:
        """Return the columns over all prompts, each condition's mean taken away."""
        require_discover(rows)
        columns = _centred(rows.activations, rows.is_target.astype(np.int64))
        return replace(columns, together=rows.group)

    @property
    def latents(self) -> int:
        """Number of columns."""
        return int(self.values.shape[1])

    @property
    def firing(self) -> Indices:
        """Number of prompts on which each latent is above zero, shape [latents]."""
        stored = np.repeat(np.arange(self.latents), np.diff(self.values.indptr))
        return np.bincount(stored[self.values.data > 0], minlength=self.latents)

    def taken(self, latents: Indices) -> ActivationColumns:
        """Return the columns of some latents, in their order."""
        values, mean = self.values[:, latents], self.mean[:, latents]
        return replace(self, values=values, mean=mean, spread=self.spread[latents])

    def standardised(self, latents: Indices) -> Floats:
        """Return (a - mean) / spread, dense [prompts, latents]; NaN where the spread is 0."""
        found = self.values[:, latents].toarray()  # changed in place: fresh pages are dear
        mean = self.mean[:, latents]
        found -= mean[self.group] if len(mean) > 1 else mean
        found /= np.where(self.spread[latents] > 0, self.spread[latents], np.nan)
        return np.asarray(found)


def _centred(activations: scipy.sparse.csr_array, group: Indices) -> ActivationColumns:
    values = activations.tocsc().astype(np.float64)
    values.sum_duplicates()
    latents = values.shape[1]
    sizes = np.bincount(group)
    column = np.repeat(np.arange(latents), np.diff(values.indptr))
    cell = group[values.indices] * latents + column
    cells = sizes.size * latents
    stored = np.bincount(cell, minlength=cells)
    totals = np.bincount(cell, weights=values.data, minlength=cells)
    mean = totals / np.repeat(sizes, latents).clip(min=1)
    distances = np.bincount(cell, weights=(values.data - mean[cell]) ** 2, minlength=cells)
    squares = distances + (np.repeat(sizes, latents) - stored) * mean**2
    spread = np.sqrt(squares.reshape(-1, latents).sum(axis=0))
    mean = mean.reshape(-1, latents)
    spread[spread <= RELATIVE_SPREAD_MIN * np.sqrt((sizes[:, None] * mean**2).sum(axis=0))] = 0
    return ActivationColumns(values, group, mean, spread)


def correlations(
    coarse: ActivationColumns,
    fine: ActivationColumns,
    coarse_latents: Indices,
    fine_latents: Indices,
) -> Floats:
    """Return Pearson r over prompts, float64 [coarse latents, fine latents], in [-1, 1].

    Of columns centred within their condition it is the partial correlation given the condition.
    Costs what the non-zero fine entries cost.

    NaN where either latent is constant over these prompts: nothing was observed.
    """
    left, spread = coarse.standardised(coarse_latents), fine.spread[fine_latents]
    # the left side sums to 0 in each group but for rounding, which counts beside a large mean
    sums = np.eye(len(fine.mean))[fine.group].T @ left
    products = fine.values[:, fine_latents].T @ left - fine.mean[:, fine_latents].T @ sums
    result = np.full((len(coarse_latents), len(fine_latents)), np.nan)
    np.divide(products.T, spread, out=result, where=spread > 0)
    return np.asarray(np.clip(result, -1.0, 1.0), dtype=np.float64)


def pair_correlations(
    coarse: ActivationColumns,
    fine: ActivationColumns,
    coarse_latents: Indices,
    fine_latents: Indices,
) -> Floats:
    """Return Pearson r of pairs, one for each place of the two equally long lists, NaN as above.

    Costs what the non-zero entries cost; meant for many pairs in few prompts.
    """
    products = coarse.values[:, coarse_latents].multiply(fine.values[:, fine_latents])
    sizes = np.bincount(coarse.group)[:, None]
    means = (sizes * coarse.mean[:, coarse_latents] * fine.mean[:, fine_latents]).sum(axis=0)
    covariance = np.asarray(products.sum(axis=0)).ravel() - means
    spread = coarse.spread[coarse_latents] * fine.spread[fine_latents]
    result = np.full(len(coarse_latents), np.nan)
    np.divide(covariance, spread, out=result, where=spread > 0)
    return np.asarray(np.clip(result, -1.0, 1.0), dtype=np.float64)


def coverages(
    coarse: ActivationColumns, fine: ActivationColumns, coarse_latents: Indices
) -> tuple[Floats, Floats]:
    """Return P(coarse fires | fine fires) and P(fine fires | coarse fires) over prompts.

    Both float64 [coarse latents, fine latents]; NaN where the condition never holds. High
    coverage is necessary for parent and child, not sufficient.
    """
    coarse_fires = (coarse.values[:, coarse_latents] > 0).astype(np.float64)
    fine_fires = (fine.values > 0).astype(np.float64)
    both = (coarse_fires.T @ fine_fires).toarray()
    coarse_count = coarse.firing[coarse_latents].astype(np.float64)[:, None]
    fine_count = fine.firing.astype(np.float64)[None, :]
    missing = np.full(both.shape, np.nan)
    given_fine = np.divide(both, fine_count, out=missing.copy(), where=fine_count > 0)
    given_coarse = np.divide(both, coarse_count, out=missing, where=coarse_count > 0)
    return given_fine, given_coarse


@dataclass(frozen=True)
class CosineBlock:
    """Cosines of some consecutive coarse rows with some consecutive fine rows."""

    coarse_start: int
    fine_start: int
    cosines: Float[Tensor, "coarse fine"]


def cosine_block_shape(
    coarse: int, fine: int, bytes_max: int = COSINE_BYTES_MAX
) -> tuple[int, int]:
    """Return (coarse rows, fine rows) of one float32 block of cosines within ``bytes_max``."""
    elements = max(1, bytes_max // 4)
    fine_block = max(1, min(fine, 16_384, elements))
    return max(1, min(coarse, elements // fine_block)), fine_block


def cosine_blocks(
    coarse: Float[Tensor, "coarse d_in"],
    fine: Float[Tensor, "fine d_in"],
    bytes_max: int = COSINE_BYTES_MAX,
) -> Iterator[CosineBlock]:
    """Yield every decoder cosine w.v / (|w| |v|) once, in blocks of rows by columns.

    A row of norm zero has no direction; its cosines are 0.
    """
    coarse_block, fine_block = cosine_block_shape(coarse.shape[0], fine.shape[0], bytes_max)
    coarse_scale, fine_scale = inverse_norms(coarse), inverse_norms(fine)
    for row in range(0, coarse.shape[0], coarse_block):
        rows = slice(row, row + coarse_block)
        unit = coarse[rows] * coarse_scale[rows, None]
        for column in range(0, fine.shape[0], fine_block):
            columns = slice(column, column + fine_block)
            dots = (unit @ fine[columns].T) * fine_scale[columns]
            yield CosineBlock(row, column, dots.clamp(-1.0, 1.0))


def row_norms(
    rows: Float[Tensor, "rows d_in"], on_block: Callable[[int], None] = lambda done: None
) -> Float[Tensor, " rows"]:
    """Return |row|, read in blocks; ``on_block`` is called with the number of rows read."""
    found = torch.empty(len(rows), dtype=rows.dtype, device=rows.device)
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        span = slice(start, start + ROWS_PER_BLOCK)
        found[span] = torch.linalg.vector_norm(rows[span], dim=1)
        on_block(min(start + ROWS_PER_BLOCK, len(rows)))
    return found


def inverse_norms(rows: Float[Tensor, "rows d_in"]) -> Float[Tensor, " rows"]:
    """Return 1 / |row|, and 0 for a row of norm zero."""
    norms = torch.linalg.vector_norm(rows, dim=1)
    return torch.where(norms > 0, 1.0 / norms, torch.zeros_like(norms))


def made_unit(
    rows: Float[Tensor, "rows d_in"], space: Float[Tensor, "rows_or_more d_in"]
) -> Float[Tensor, "rows d_in"]:
    """Write the rows at length 1 into ``space`` and return them; one of norm zero stays zero.

    Space that is used again for the next block costs a fifth of what fresh pages cost, and rows
    are scaled while they are in cache.
    """
    found = space[: len(rows)]
    for start in range(0, len(rows), ROWS_IN_CACHE):
        span = slice(start, start + ROWS_IN_CACHE)
        torch.mul(rows[span], inverse_norms(rows[span])[:, None], out=found[span])
    return found


def top_latents(scores: NDArray[np.floating], count: int) -> Indices:
    """Return the ``count`` latents of the highest score, best first, NaN never among them.

    Of equal scores the lower latent comes first; fewer are returned where fewer are known.
    """
    known = np.flatnonzero(~np.isnan(scores))
    if known.size > count:
        cut = np.partition(scores[known], known.size - count)[known.size - count]
        known = known[scores[known] >= cut]
    return known[np.lexsort((known, -scores[known]))][:count]


def cosine_bins() -> tuple[Floats, Floats]:
    """Return (bin_low, bin_high): 100 bins of width 0.02 on [-1, 1], the last closed."""
    edges = np.round(np.linspace(-1.0, 1.0, HISTOGRAM_BINS + 1), 2)
    return edges[:-1], edges[1:]
