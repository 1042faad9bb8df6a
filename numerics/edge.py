"""Near ties: active latents chosen by a margin that rounding could undo.

Which latents are active is a choice at an edge: zero, a stored threshold, or the largest
pre-activation that TopK leaves out. Another processor, batch or device rounds sums otherwise, and
whatever lies within that rounding of the edge may fall on its other side.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from loopscope.numerics.dictionary import SparseDictionary, encode

ROUNDING = 16 * float(np.finfo(np.float32).eps)
"""Rounding of a pre-activation, as a share of the size of what is summed: 16 float32 eps, 1.9e-6.

A pre-activation is a sum, so its error is proportional to ``|c| |w| + |b|`` (c the centred row, w
the encoder's column, b its bias: the largest that the sum could be, by Cauchy and Schwarz) and not
to the sum itself, which may cancel to nearly nothing. The row brings most of the error along: it
is the end of a forward pass in float32. The largest error seen on the France example, batched
float32 against float64 encoding of another float32 pass, was 7.6 eps (docs/science.md).
"""


def encoder_norms(dictionary: SparseDictionary) -> Float[Tensor, " d_sae"]:
    """Return the length of each latent's encoder column, on the dictionary's device."""
    norms: Tensor = torch.linalg.vector_norm(dictionary.w_enc, dim=0)
    return norms


def encode_to_the_edge(
    dictionary: SparseDictionary,
    x: Float[Tensor, "rows d_in"],
    row_block: int,
    latent_block: int,
    norms: Float[Tensor, " d_sae"],
) -> tuple[scipy.sparse.csr_array, int]:
    """Return the activations as ``encode`` does, and how many of them lie near the edge.

    An active latent lies near the edge when its pre-activation exceeds the edge by no more than
    ``ROUNDING`` times the size of what is summed, its own and, for TopK, that of the latent at the
    edge. The edge is 0 for ReLU, the larger of 0 and the threshold for JumpReLU and BatchTopK, and
    the largest pre-activation left out, or 0, for TopK. ``norms`` are those of ``encoder_norms``.
    """
    if dictionary.architecture == "topk":
        found, edges, at_edge = _encode_topk(dictionary, x, row_block, latent_block)
    else:
        found = encode(dictionary, x, row_block, latent_block)
        edges, at_edge = np.zeros(len(x)), np.full(len(x), -1)
    rows, latents = _rows_of(found), found.indices
    centred = x.float() - dictionary.b_dec if dictionary.apply_b_dec_to_input else x.float()
    lengths = torch.linalg.vector_norm(centred, dim=1).double().cpu().numpy()
    columns = norms.double().cpu().numpy()
    biases = dictionary.b_enc.abs().double().cpu().numpy()
    edge = edges[rows]
    size = lengths[rows] * columns[latents] + biases[latents]
    size += np.where(at_edge >= 0, lengths * columns[at_edge] + biases[at_edge], 0.0)[rows]
    if dictionary.threshold is not None:
        edge = np.maximum(edge, dictionary.threshold.double().cpu().numpy()[latents])
    return found, int(np.count_nonzero(found.data - edge <= ROUNDING * size))


def _encode_topk(
    dictionary: SparseDictionary, x: Float[Tensor, "rows d_in"], row_block: int, latent_block: int
) -> tuple[scipy.sparse.csr_array, NDArray[np.float64], NDArray[np.int64]]:
    """Return the activations, and of each row the first pre-activation left out and its latent.

    0 and -1 where none above 0 is left out.
    """
    k = int(dictionary.k or 0)
    one_more = replace(dictionary, k=min(k + 1, dictionary.d_sae))
    found = encode(one_more, x, row_block, latent_block)
    rows = _rows_of(found)
    falling = np.lexsort((found.indices, -found.data, rows))
    left_out = falling[np.arange(found.nnz) - found.indptr[rows] == k]
    edges, latents = np.zeros(len(x)), np.full(len(x), -1)
    edges[rows[left_out]] = found.data[left_out]
    latents[rows[left_out]] = found.indices[left_out]
    kept = np.ones(found.nnz, dtype=bool)
    kept[left_out] = False
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=len(x)))])
    parts = (found.data[kept], found.indices[kept], indptr.astype(found.indptr.dtype))
    return scipy.sparse.csr_array(parts, shape=found.shape), edges, latents


def _rows_of(activations: scipy.sparse.csr_array) -> NDArray[np.int64]:
    """Return the row of each stored value."""
    return np.repeat(np.arange(activations.shape[0]), np.diff(activations.indptr))
