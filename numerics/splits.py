"""Prompt activations by split, as two types: what selects cannot be given what confirms.

Functions that choose latents, map or build a null take ``DiscoverRows``; ``HeldOutRows`` (the
split *test*) fit only the functions that confirm. Neither can be built but by ``split_rows``.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

CONDITIONS = ("target", "neutral", "hard-negative")
SPLITS = ("discover", "test")

_SEAL = object()
"""Known to this module alone: rows that come without it were not split here."""


@dataclass(frozen=True)
class _Rows:
    """Prompt activations of one split, entries >= 0.

    ``activations`` [prompts, latents] holds target and neutral prompts, ``is_target`` says which;
    ``hard_negatives`` [prompts, latents] are apart, without rows where the spec names none.
    """

    activations: scipy.sparse.csr_array
    is_target: NDArray[np.bool_]
    hard_negatives: scipy.sparse.csr_array
    seal: InitVar[object] = None

    def __post_init__(self, seal: object) -> None:
        """Raise TypeError unless the rows come from ``split_rows``."""
        if seal is not _SEAL:
            raise TypeError(f"{type(self).__name__} are made by split_rows alone")

    @property
    def prompts(self) -> int:
        """Target and neutral prompts together."""
        return len(self.is_target)

    def latents(self, chosen: NDArray[np.integer]) -> Self:
        """Return the same prompts with the columns ``chosen``, in that order."""
        return type(self)(
            self.activations[:, chosen], self.is_target, self.hard_negatives[:, chosen], _SEAL
        )


@dataclass(frozen=True)
class DiscoverRows(_Rows):
    """The rows that may choose: latents, edges, the gate's null."""

    def taken(self, chosen: NDArray[np.integer]) -> DiscoverRows:
        """Return the prompts at the places ``chosen``, one row for each, repeated or not."""
        return DiscoverRows(
            self.activations[chosen], self.is_target[chosen], self.hard_negatives, _SEAL
        )


@dataclass(frozen=True)
class HeldOutRows(_Rows):
    """The rows of the split *test*: they confirm what was chosen before, once."""


def split_rows(
    activations: scipy.sparse.csr_array,
    condition: NDArray[np.str_],
    split: NDArray[np.str_],
) -> tuple[DiscoverRows, HeldOutRows | None]:
    """Return the two splits of prompt activations [prompts, latents]; None without test rows.

    ``condition`` and ``split`` name each prompt's. Raises ValueError for a name that is unknown.
    """
    for known, found in ((CONDITIONS, condition), (SPLITS, split)):
        strange = set(np.unique(found).tolist()) - set(known)
        if strange:
            raise ValueError(f"expected one of {', '.join(known)}, found {sorted(strange)}")
    contrasted = condition != "hard-negative"

    def parts(
        name: str,
    ) -> tuple[scipy.sparse.csr_array, NDArray[np.bool_], scipy.sparse.csr_array, object]:
        rows = split == name
        chosen = np.flatnonzero(rows & contrasted)
        hard = np.flatnonzero(rows & ~contrasted)
        return activations[chosen], condition[chosen] == "target", activations[hard], _SEAL

    held_out = HeldOutRows(*parts("test")) if (split == "test").any() else None
    return DiscoverRows(*parts("discover")), held_out


def require_discover(rows: object) -> None:
    """Raise TypeError where rows that must not choose arrive without a type checker."""
    if not isinstance(rows, DiscoverRows):
        raise TypeError(f"only DiscoverRows may choose, found {type(rows).__name__}")
