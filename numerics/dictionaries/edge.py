"""Near ties: active latents chosen by a margin that rounding could undo.

Which latents are active is a choice at an edge: zero, a stored threshold, or the largest
pre-activation that TopK leaves out. Another processor, batch or device rounds sums otherwise, and
whatever lies within that rounding of the edge may fall on its other side.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics.dictionaries.sparse import (
    LATENTS_PER_BLOCK_MAX,
    SparseDictionary,
    rows_of,
)

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
    found = []
    for start in range(0, dictionary.d_sae, LATENTS_PER_BLOCK_MAX):
        columns = dictionary.w_enc[:, start : start + LATENTS_PER_BLOCK_MAX]
        found.append(torch.linalg.vector_norm(columns, dim=0))
        dictionary.release()
    return torch.cat(found)


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
    found, margins, rivals = dictionary.with_margins(x, row_block, latent_block)
    rows, latents = rows_of(found), found.indices
    lengths = dictionary.lengths(x.float()).double().cpu().numpy()
    columns = norms.double().cpu().numpy()
    biases = dictionary.b_enc.abs().double().cpu().numpy()
    size = lengths[rows] * columns[latents] + biases[latents]
    size += np.where(rivals >= 0, lengths * columns[rivals] + biases[rivals], 0.0)[rows]
    return found, int(np.count_nonzero(margins <= ROUNDING * size))
