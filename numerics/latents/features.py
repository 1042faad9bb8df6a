"""Per-latent statistics over prompts: firing, means, selectivity, AUROC, significance.

Prompts are the unit, never tokens: tokens of one prompt are not independent. All statistics
run over the sparse columns, so 262,144 latents cost what their non-zero entries cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import scipy.sparse
import scipy.special
from numpy.typing import NDArray

from loopscope.numerics.latents.splits import DiscoverRows, HeldOutRows, require_discover
from loopscope.numerics.statistics.multiple_tests import Floats, benjamini_hochberg, holm
from loopscope.numerics.statistics.perfect import FIRING_PROMPTS_MIN

Aggregation = Literal["last", "max", "mean"]
Alternative = Literal["two-sided", "greater"]

SELECTIVITY_EPSILON = 1e-6
RELATIVE_SPREAD_MIN = 1e-10
"""Below this share of the mean a float32 column is constant: the rest is rounding."""


@dataclass(frozen=True)
class LatentStatistics:
    """One float64 entry per latent, shape [d_sae], over the prompts of one split.

    ``p_value`` and ``q_value`` are NaN for a latent that was not tested, ``cohens_d`` where the
    activations do not vary within the conditions. The last three are None without hard negatives.
    """

    mean_activation_target: Floats
    mean_activation_neutral: Floats
    max_activation_target: Floats
    max_activation_neutral: Floats
    firing_rate_target: Floats
    firing_rate_neutral: Floats
    selectivity: Floats
    cohens_d: Floats
    auroc: Floats
    p_value: Floats
    q_value: Floats
    n_firing: NDArray[np.int64]
    mean_activation_hard_negative: Floats | None = None
    firing_rate_hard_negative: Floats | None = None
    selectivity_hard_negative: Floats | None = None

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return what is known as columns of a table, one row a latent."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @staticmethod
    def of_columns(table: Mapping[str, NDArray[Any]]) -> LatentStatistics:
        """Read the columns of a table that ``columns`` filled; others are left aside."""
        known = {field.name for field in fields(LatentStatistics)}
        return LatentStatistics(**{k: v for k, v in table.items() if k in known})


def aggregate_prompts(
    activations: scipy.sparse.csr_array,
    prompt_index: NDArray[np.integer],
    position: NDArray[np.integer],
    prompts: int,
    aggregation: Aggregation,
) -> scipy.sparse.csr_array:
    """Return float32 CSR [prompts, d_sae]: the last row, the largest or the mean of each prompt.

    ``activations`` is [rows, d_sae] with entries >= 0; the mean counts silent rows as zero. A
    prompt without a row raises ``ValueError``: missing is not zero.
    """
    rows_of = np.bincount(prompt_index, minlength=prompts)
    if rows_of.size != prompts or (rows_of == 0).any():
        raise ValueError("every prompt needs at least one captured row, and every row a prompt")
    if aggregation == "last":
        order = np.lexsort((position, prompt_index))
        picked = activations[order[np.cumsum(rows_of) - 1]]
        return _clean(picked)
    entries = activations.tocoo()
    keys = prompt_index[entries.row].astype(np.int64) * activations.shape[1] + entries.col
    order = np.argsort(keys, kind="stable")
    cells, starts = np.unique(keys[order], return_index=True)
    values = entries.data[order].astype(np.float64)
    rows, columns = cells // activations.shape[1], cells % activations.shape[1]
    if cells.size == 0:
        reduced = values
    elif aggregation == "max":
        reduced = np.maximum.reduceat(values, starts)
    else:
        reduced = np.add.reduceat(values, starts) / rows_of[rows]
    shape = (prompts, activations.shape[1])
    return _clean(scipy.sparse.csr_array((reduced, (rows, columns)), shape=shape))


def latent_statistics(rows: DiscoverRows) -> LatentStatistics:
    """Return the statistics that choose latents: two-sided tests, q over all tested latents.

    Selectivity is (m+ - m-) / (m+ + m- + epsilon) of the mean activations, 0 for a latent that
    never fires; AUROC is P(target > neutral) + P(tie) / 2; Cohen's d divides the difference of
    the means by the pooled standard deviation. Raises ``ValueError`` where one of the conditions
    has no prompt.
    """
    require_discover(rows)
    described = _described(rows.activations, rows.is_target, rows.hard_negatives, "two-sided")
    return replace(described, q_value=benjamini_hochberg(described.p_value))


def latents_tested(rows: DiscoverRows) -> NDArray[np.int64]:
    """Return the latents that ``latent_statistics`` tests: those that fire on enough prompts."""
    require_discover(rows)
    firing = np.bincount(
        rows.activations.indices[rows.activations.data > 0], minlength=rows.activations.shape[1]
    )
    return np.flatnonzero(firing >= FIRING_PROMPTS_MIN)


def held_out_statistics(rows: HeldOutRows) -> LatentStatistics:
    """Return the statistics that confirm, one column each for latents chosen before.

    The tests are one-sided (target larger), because the direction was chosen before, too;
    ``q_value`` holds Holm's adjusted p over the columns given: latents chosen by one question.
    """
    described = _described(rows.activations, rows.is_target, rows.hard_negatives, "greater")
    return replace(described, q_value=holm(described.p_value))


def _described(
    activations: scipy.sparse.csr_array,
    is_target: NDArray[np.bool_],
    hard_negatives: scipy.sparse.csr_array,
    alternative: Alternative,
) -> LatentStatistics:
    targets, neutrals = int(is_target.sum()), int((~is_target).sum())
    if targets == 0 or neutrals == 0:
        raise ValueError(f"need prompts of both conditions, found {targets} and {neutrals}")
    target, neutral = _Moments.of(activations[is_target]), _Moments.of(activations[~is_target])
    n_firing = target.firing + neutral.firing
    auroc, p_value = mann_whitney(activations, is_target, alternative)
    p_value[n_firing < FIRING_PROMPTS_MIN] = np.nan
    hard = _Moments.of(hard_negatives) if hard_negatives.shape[0] else None
    return LatentStatistics(
        mean_activation_target=target.mean,
        mean_activation_neutral=neutral.mean,
        max_activation_target=target.largest,
        max_activation_neutral=neutral.largest,
        firing_rate_target=target.rate,
        firing_rate_neutral=neutral.rate,
        selectivity=_selectivity(target.mean, neutral.mean),
        cohens_d=_cohens_d(target, neutral),
        auroc=auroc,
        p_value=p_value,
        q_value=np.full(p_value.shape, np.nan),
        n_firing=n_firing.astype(np.int64),
        mean_activation_hard_negative=hard.mean if hard else None,
        firing_rate_hard_negative=hard.rate if hard else None,
        selectivity_hard_negative=_selectivity(target.mean, hard.mean) if hard else None,
    )


@dataclass(frozen=True)
class _Moments:
    """Per column, silent prompts counted: mean, largest, sum of squares about the mean."""

    prompts: int
    mean: Floats
    largest: Floats
    squares: Floats
    firing: NDArray[np.int64]

    @staticmethod
    def of(activations: scipy.sparse.csr_array) -> _Moments:
        prompts, latents = activations.shape
        entries = _clean(activations)
        column, value = entries.indices, entries.data.astype(np.float64)
        firing = np.bincount(column, minlength=latents)
        mean = np.bincount(column, weights=value, minlength=latents) / prompts
        stored = np.bincount(column, weights=(value - mean[column]) ** 2, minlength=latents)
        largest = np.zeros(latents)
        np.maximum.at(largest, column, value)
        return _Moments(prompts, mean, largest, stored + (prompts - firing) * mean**2, firing)

    @property
    def rate(self) -> Floats:
        return self.firing / self.prompts


def _selectivity(target: Floats, other: Floats) -> Floats:
    return np.asarray((target - other) / (target + other + SELECTIVITY_EPSILON))


def _cohens_d(target: _Moments, neutral: _Moments) -> Floats:
    """Return the standardised difference of means (Cohen 1988, section 2.2), NaN without spread."""
    freedom = target.prompts + neutral.prompts - 2
    result = np.full(target.mean.shape, np.nan)
    if freedom > 0:
        pooled = np.sqrt((target.squares + neutral.squares) / freedom)
        scale = np.maximum(target.mean, neutral.mean)
        spread = pooled > RELATIVE_SPREAD_MIN * scale
        np.divide(target.mean - neutral.mean, pooled, out=result, where=spread)
    return result


def mann_whitney(
    activations: scipy.sparse.csr_array,
    is_target: NDArray[np.bool_],
    alternative: Alternative = "two-sided",
) -> tuple[Floats, Floats]:
    """Return (AUROC, p) per column of [prompts, d_sae], entries >= 0.

    ``greater`` asks whether target prompts have the larger activations. The asymptotic test with
    tie and continuity correction, as in ``scipy.stats.mannwhitneyu(method="asymptotic")``; all
    the zeros of a column are one tie below its entries. A column that is constant has AUROC 0.5
    and p 1.
    """
    prompts, latents = activations.shape
    n_target = float(is_target.sum())
    n_neutral = prompts - n_target
    entries = _clean(activations).tocoo()
    # positive numbers of float32 are in the order of their bits, and one key sorts fastest
    order = np.argsort(entries.col.astype(np.int64) << 32 | entries.data.view(np.int32))
    column, value = entries.col[order], entries.data[order]
    target = is_target[entries.row[order]].astype(np.float64)
    stored = np.bincount(column, minlength=latents)
    zeros = (prompts - stored).astype(np.float64)
    first = np.cumsum(stored) - stored

    new_tie = np.ones(column.size, dtype=bool)
    new_tie[1:] = (column[1:] != column[:-1]) | (value[1:] != value[:-1])
    tie_start = np.flatnonzero(new_tie)
    tie_size = np.diff(np.append(tie_start, column.size)).astype(np.float64)
    tie_column = column[tie_start]
    tie_rank = zeros[tie_column] + (tie_start - first[tie_column]) + (tie_size + 1) / 2
    rank = np.repeat(tie_rank, tie_size.astype(np.int64))

    target_zeros = n_target - np.bincount(column, weights=target, minlength=latents)
    stored_ranks = np.bincount(column, weights=target * rank, minlength=latents)
    rank_sum = stored_ranks + target_zeros * (zeros + 1) / 2
    u_target = rank_sum - n_target * (n_target + 1) / 2
    stored_ties = np.bincount(tie_column, weights=tie_size**3 - tie_size, minlength=latents)
    ties = stored_ties + (zeros**3 - zeros)
    variance = n_target * n_neutral / 12 * ((prompts + 1) - ties / (prompts * (prompts - 1)))

    larger = np.maximum(u_target, n_target * n_neutral - u_target)
    tested = larger if alternative == "two-sided" else u_target
    sides = 2 if alternative == "two-sided" else 1
    deviation = np.sqrt(np.maximum(variance, 0))
    excess = tested - n_target * n_neutral / 2 - 0.5
    z = np.divide(excess, deviation, out=np.full(latents, -np.inf), where=deviation > 0)
    return u_target / (n_target * n_neutral), np.minimum(sides * scipy.special.ndtr(-z), 1.0)


def _clean(activations: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Return a float32 copy with sorted indices and no stored zero."""
    clean = activations.astype(np.float32, copy=True).tocsr()
    clean.sum_duplicates()
    clean.eliminate_zeros()
    return clean
