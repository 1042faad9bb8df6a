"""Prompt activations by split, as two types: what selects cannot be given what confirms.

Functions that choose latents, map or build a null take ``DiscoverRows``; ``HeldOutRows`` (the
split *test*) fit only the functions that confirm. Neither can be built but by ``split_rows``.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from functools import cached_property
from typing import Any, Self

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

    ``activations`` [prompts, latents] holds target and neutral prompts, ``is_target`` marks those;
    ``hard_negatives`` [prompts, latents] are apart, without rows where the spec names none.
    ``group`` [prompts] is the same number for prompts that belong together; None where none do.
    """

    activations: scipy.sparse.csr_array
    is_target: NDArray[np.bool_]
    hard_negatives: scipy.sparse.csr_array
    group: NDArray[np.int64] | None = None
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
            self.activations[:, chosen],
            self.is_target,
            self.hard_negatives[:, chosen],
            self.group,
            _SEAL,
        )


@dataclass(frozen=True)
class DiscoverRows(_Rows):
    """The rows that may choose: latents, edges, the gate's null."""

    def taken(self, chosen: NDArray[np.integer]) -> DiscoverRows:
        """Return the prompts at the places ``chosen``, one row for each, repeated or not."""
        return DiscoverRows(
            self.activations[chosen],
            self.is_target[chosen],
            self.hard_negatives,
            None if self.group is None else self.group[chosen],
            _SEAL,
        )

    def halved(self, generator: np.random.Generator) -> DiscoverRows:
        """Return half of the groups of each make-up (rounded up), none of them twice.

        A group's make-up is how many target and how many neutral prompts it holds; without groups
        this is half of the prompts of each condition.
        """
        drawn = [
            units[generator.permutation(len(units))[: -(-len(units) // 2)]].ravel()
            for units in self._units
        ]
        return self.taken(np.sort(np.concatenate(drawn)))

    @cached_property
    def _units(self) -> list[NDArray[np.int64]]:
        return exchangeable((~self.is_target).astype(np.int64), self.group)


@dataclass(frozen=True)
class HeldOutRows(_Rows):
    """The rows of the split *test*: they confirm what was chosen before, once."""


def split_rows(
    activations: scipy.sparse.csr_array,
    condition: NDArray[np.str_],
    split: NDArray[np.str_],
    group: NDArray[np.int64] | None = None,
) -> tuple[DiscoverRows, HeldOutRows | None]:
    """Return the two splits of prompt activations [prompts, latents]; None without test rows.

    ``condition`` and ``split`` name each prompt's, ``group`` [prompts] numbers what belongs
    together. Raises ValueError for a name that is unknown.
    """
    for known, found in ((CONDITIONS, condition), (SPLITS, split)):
        strange = set(np.unique(found).tolist()) - set(known)
        if strange:
            raise ValueError(f"expected one of {', '.join(known)}, found {sorted(strange)}")
    contrasted = condition != "hard-negative"

    def parts(name: str) -> tuple[Any, ...]:
        rows = split == name
        chosen = np.flatnonzero(rows & contrasted)
        hard = np.flatnonzero(rows & ~contrasted)
        groups = None if group is None else group[chosen]
        return activations[chosen], condition[chosen] == "target", activations[hard], groups, _SEAL

    held_out = HeldOutRows(*parts("test")) if (split == "test").any() else None
    return DiscoverRows(*parts("discover")), held_out


def exchangeable(
    stratum: NDArray[np.integer], group: NDArray[np.integer] | None
) -> list[NDArray[np.int64]]:
    """Return the prompts as units that may stand for one another: places [units, prompts in one].

    A unit is a group, or a prompt where ``group`` is None. Each entry holds the units of one
    make-up: as many prompts of each stratum (for example condition), in the order of the strata.
    """
    group = np.arange(len(stratum)) if group is None else group
    order = np.lexsort((stratum, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    makeups: dict[tuple[int, ...], list[NDArray[np.int64]]] = {}
    for places in np.split(order, starts[1:]):
        makeups.setdefault(tuple(stratum[places].tolist()), []).append(places)
    return [np.stack(makeups[makeup]) for makeup in sorted(makeups)]


def require_discover(rows: object) -> None:
    """Raise TypeError where rows that must not choose arrive without a type checker."""
    if not isinstance(rows, DiscoverRows):
        raise TypeError(f"only DiscoverRows may choose, found {type(rows).__name__}")
