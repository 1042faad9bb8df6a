"""Prompt activations of one split, as the split function makes them."""

import numpy as np
import scipy.sparse

from loopscope.numerics.latents.splits import DiscoverRows, HeldOutRows, split_rows


def discover_rows(activations, is_target, hard_negatives=None) -> DiscoverRows:
    """Return rows that may choose; the arguments are array-like [prompts, latents]."""
    rows = _matrix(activations)
    condition = np.where(is_target, "target", "neutral")
    if hard_negatives is not None:
        rows = scipy.sparse.vstack([rows, _matrix(hard_negatives)], format="csr")
        condition = np.append(condition, ["hard-negative"] * len(hard_negatives))
    return split_rows(rows, condition, np.full(len(condition), "discover"))[0]


def held_out_rows(activations, is_target) -> HeldOutRows:
    """Return rows that may only confirm."""
    condition = np.where(is_target, "target", "neutral")
    _, held_out = split_rows(_matrix(activations), condition, np.full(len(condition), "test"))
    assert held_out is not None
    return held_out


def _matrix(activations) -> scipy.sparse.csr_array:
    if scipy.sparse.issparse(activations):
        return activations
    return scipy.sparse.csr_array(np.asarray(activations, dtype=np.float32))
