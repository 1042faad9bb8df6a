"""Control dictionaries, independent of the concept, whose count of children the gate must beat.

Uniform directions are too weak a control for a trained dictionary: in 640 dimensions a cosine of
0.3 with one has probability 4e-15, so such a control is always beaten. Here rows are drawn that
spread as the fine decoder's own rows spread, or as the residual stream does. Where the rule uses
activations, the fine latents' activations are dealt to other decoder rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from loopscope.numerics.gate.near_rows import NearRows
from loopscope.numerics.gate.row_law import RowLaw
from loopscope.numerics.latents.mapping import Indices, inverse_norms
from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.statistics.multiple_tests import exceedance

ControlKind = Literal["decoder rows", "stream rows", "permuted pairs"]

CONTROL_DRAWS = 99
ROWS_PER_BLOCK = 65_536


@dataclass(frozen=True)
class Control:
    """``counts`` [draws]: the largest count of an anchor in each draw; ``observed``: the real one.

    ``decides``: whether the gate must beat it. ``effective_dimensions`` is the participation
    ratio of the law of the rows, (sum v)^2 / sum v^2 over its variances v: the fewer, the more
    often rows are alike by chance. None for a control that draws no rows.
    """

    kind: ControlKind
    observed: int
    counts: Indices
    decides: bool
    effective_dimensions: float | None = None

    @property
    def p(self) -> float:
        """Return (1 + draws with at least as many children) / (1 + draws)."""
        return exceedance(self.counts, self.observed)


def deciding_p(controls: Sequence[Control]) -> float:
    """Return the largest p of the controls that decide; 1 without any: nothing was beaten."""
    return max((control.p for control in controls if control.decides), default=1.0)


def drawn_row_counts(
    anchors: Float[Tensor, "anchors d_in"],
    allowed: NDArray[np.bool_],
    law: RowLaw,
    cosine_min: float,
    key: tuple[str | int, ...],
    draws: int = CONTROL_DRAWS,
    on_draw: Callable[[int], None] = lambda done: None,
) -> Indices:
    """Return the largest count of children in each of many fine dictionaries drawn from ``law``.

    ``allowed`` [anchors, fine] marks the fine latents that behave like children; each gets a row of
    its own. The counts have exactly the law of rows made in full (up to e^-40 a row), though few
    are: see ``NearRows``.
    """
    known = bool(law.variances.size or law.mean.any())
    if anchors.shape[0] == 0 or not allowed.any() or not known:
        return np.zeros(draws, dtype=np.int64)
    counts = np.zeros((draws, anchors.shape[0]), dtype=np.int64)
    rows = anchors.double().cpu()
    norms = NearRows.of((rows * inverse_norms(rows)[:, None]).numpy(), law)

    def drawn(number: int) -> Indices:
        generator = keyed_generator("control rows", *key, number)
        found = np.zeros(anchors.shape[0], dtype=np.int64)
        for start in range(0, allowed.shape[1], ROWS_PER_BLOCK):
            block = allowed[:, start : start + ROWS_PER_BLOCK]
            found += norms.reaching(generator, block, cosine_min)
        return found

    # each draw has a generator of its own, so that threads change nothing
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        try:
            for number, found in enumerate(pool.map(drawn, range(draws))):
                on_draw(number)
                counts[number] = found
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return np.asarray(counts.max(axis=1), dtype=np.int64)


def permuted_pair_counts(
    aligned: NDArray[np.bool_],
    behaves: NDArray[np.bool_],
    key: tuple[str | int, ...],
    draws: int = CONTROL_DRAWS,
) -> Indices:
    """Return each anchor's children when activations are dealt to other decoders: [draws, anchors].

    Both [anchors, fine]. One permutation of the fine latents serves all anchors of a draw. Every
    cosine stays, so this is a control of what uses activations and of nothing else.
    """
    counts = np.zeros((draws, len(aligned)), dtype=np.int64)
    near = np.flatnonzero(aligned.any(axis=0))  # of a wide dictionary hardly any
    if not near.size:
        return counts
    for number in range(draws):
        order = keyed_generator("permuted pairs", *key, number).permutation(aligned.shape[1])
        counts[number] = (aligned[:, near] & behaves[:, order[near]]).sum(axis=1)
    return counts
