"""Latents of one dictionary found again in another: by their nearest rows, and one for one.

The optimal assignment is the one with the largest sum of cosines (Kuhn 1955, in SciPy's version of
Jonker and Volgenant 1987), where those below the limit count as 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.sparse
from numpy.typing import NDArray

from loopscope.numerics.statistics.paired import rate_interval

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
LATENTS_MAX = 8192
"""Latents of a side up to which all are assigned at once: a dense matrix, cubic time."""


@dataclass(frozen=True)
class Matches:
    """Pairs of latents that are each other's match, with their cosines: three arrays [matches]."""

    first: Integers
    second: Integers
    cosine: Floats

    @property
    def partner(self) -> dict[int, int]:
        """The second latent of each first one that has a match."""
        return dict(zip(self.first.tolist(), self.second.tolist(), strict=True))


@dataclass(frozen=True)
class Share:
    """How many of how many, with Wilson's 95 % interval of the share (NaN of none)."""

    count: int
    of: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The share itself, NaN of none."""
        return self.count / self.of if self.of else float("nan")

    @staticmethod
    def over(found: Collection[bool]) -> Share:
        """Return the share of what is true."""
        scores = np.array(list(found), dtype=np.float64)[:, None]
        low, high = rate_interval(scores) if len(scores) else (float("nan"), float("nan"))
        return Share(int(scores.sum()), len(scores), low, high)


def assigned(cosines: scipy.sparse.csr_array, cosine_min: float) -> Matches:
    """Return the optimal assignment of first latents to second ones [first, second].

    Cosines that are not listed, or below ``cosine_min``, count as 0 and are no match. Raises
    ValueError beyond ``LATENTS_MAX`` of a side.
    """
    if max(cosines.shape) > LATENTS_MAX:
        raise ValueError(f"{max(cosines.shape):,} latents, at most {LATENTS_MAX:,} are assigned")
    dense = cosines.toarray()
    dense[dense < cosine_min] = 0.0
    first, second = scipy.optimize.linear_sum_assignment(dense, maximize=True)
    cosine = dense[first, second].astype(np.float64)
    kept = cosine >= cosine_min
    return Matches(first[kept].astype(np.int64), second[kept].astype(np.int64), cosine[kept])


def nearest(cosines: scipy.sparse.csr_array) -> Floats:
    """Return the largest cosine of each first latent to any second one, [first]; 0 if unlisted."""
    return np.asarray(cosines.max(axis=1).toarray().ravel(), dtype=np.float64)


def edge_is_there(
    edges: Collection[tuple[int, int]],
    coarse: Mapping[int, int],
    fine: Mapping[int, int],
    others: Collection[tuple[int, int]],
) -> list[bool]:
    """Return of each edge (coarse, fine) whether its ends' partners have an edge among ``others``.

    An edge of which an end has no partner is not there.
    """
    known = set(others)
    return [(coarse.get(one, -1), fine.get(other, -1)) in known for one, other in edges]
