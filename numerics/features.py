"""Per-latent statistics over prompts: firing, means, selectivity, AUROC, significance.

Prompts are the unit, never tokens: tokens of one prompt are not independent. All statistics
run over the sparse columns, so 262,144 latents cost what their non-zero entries cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse
import scipy.stats
from numpy.typing import NDArray

Aggregation = Literal["last", "max", "mean"]
Floats = NDArray[np.float64]

SELECTIVITY_EPSILON = 1e-6
FIRING_PROMPTS_MIN = 5
"""Latents firing on fewer prompts are not tested: their p and q are NaN."""


@dataclass(frozen=True)
class LatentStatistics:
    """One float64 entry per latent, shape [d_sae]; ``p_value`` and ``q_value`` may be NaN."""

    mean_activation_target: Floats
    mean_activation_neutral: Floats
    firing_rate_target: Floats
    firing_rate_neutral: Floats
    selectivity: Floats
    auroc: Floats
    p_value: Floats
    q_value: Floats
    n_firing: NDArray[np.int64]


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


def latent_statistics(
    activations: scipy.sparse.csr_array, is_target: NDArray[np.bool_]
) -> LatentStatistics:
    """Return the statistics of prompt activations [prompts, d_sae], entries >= 0.

    Selectivity is (m+ - m-) / (m+ + m- + epsilon) of the mean activations, 0 for a latent that
    never fires; AUROC is P(target > neutral) + P(tie) / 2. Raises ``ValueError`` where one of
    the conditions has no prompt.
    """
    targets, neutrals = int(is_target.sum()), int((~is_target).sum())
    if targets == 0 or neutrals == 0:
        raise ValueError(f"need prompts of both conditions, found {targets} and {neutrals}")
    mean_target, rate_target = _mean_and_rate(activations[is_target])
    mean_neutral, rate_neutral = _mean_and_rate(activations[~is_target])
    n_firing = np.bincount(_clean(activations).indices, minlength=activations.shape[1])
    auroc, p_value = mann_whitney(activations, is_target)
    p_value[n_firing < FIRING_PROMPTS_MIN] = np.nan
    return LatentStatistics(
        mean_activation_target=mean_target,
        mean_activation_neutral=mean_neutral,
        firing_rate_target=rate_target,
        firing_rate_neutral=rate_neutral,
        selectivity=(mean_target - mean_neutral)
        / (mean_target + mean_neutral + SELECTIVITY_EPSILON),
        auroc=auroc,
        p_value=p_value,
        q_value=benjamini_hochberg(p_value),
        n_firing=n_firing.astype(np.int64),
    )


def mann_whitney(
    activations: scipy.sparse.csr_array, is_target: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Return (AUROC, two-sided p) per column of [prompts, d_sae], entries >= 0.

    The asymptotic test with tie and continuity correction, as in
    ``scipy.stats.mannwhitneyu(method="asymptotic")``; all the zeros of a column are one tie
    below its entries. A column that is constant has AUROC 0.5 and p 1.
    """
    prompts, latents = activations.shape
    n_target = float(is_target.sum())
    n_neutral = prompts - n_target
    entries = _clean(activations).tocoo()
    order = np.lexsort((entries.data, entries.col))
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
    deviation = np.sqrt(np.maximum(variance, 0))
    excess = larger - n_target * n_neutral / 2 - 0.5
    z = np.divide(excess, deviation, out=np.full(latents, -np.inf), where=deviation > 0)
    return u_target / (n_target * n_neutral), np.minimum(2 * scipy.stats.norm.sf(z), 1.0)


def benjamini_hochberg(p_value: Floats) -> Floats:
    """Return the q-values of the tested entries (p not NaN); NaN stays NaN and is no test.

    Benjamini and Hochberg 1995, the step-up procedure: q_i = min over j >= i of p_j m / j.
    """
    q_value = np.full(p_value.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p_value))
    order = tested[np.argsort(p_value[tested], kind="stable")]
    scaled = p_value[order] * order.size / np.arange(1, order.size + 1)
    q_value[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q_value


def _mean_and_rate(activations: scipy.sparse.csr_array) -> tuple[Floats, Floats]:
    """Return (mean, share of prompts above zero) per column, silent prompts counted."""
    prompts, latents = activations.shape
    entries = _clean(activations)
    total = np.bincount(entries.indices, weights=entries.data, minlength=latents)
    return total / prompts, np.bincount(entries.indices, minlength=latents) / prompts


def _clean(activations: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Return a float32 copy with sorted indices and no stored zero."""
    clean = activations.astype(np.float32, copy=True).tocsr()
    clean.sum_duplicates()
    clean.eliminate_zeros()
    return clean
