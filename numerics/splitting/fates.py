"""Fates of latents from one resolution to the next, read off the edges between them.

Splitting: Bricken et al. 2023, *Towards Monosemanticity*. Absorption: Chanin et al. 2024, *A is for
Absorption* (arXiv 2409.14507): a latent stays, but is silent where a narrower one fires.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loopscope.numerics.latents.mapping import ActivationColumns
from loopscope.numerics.splitting.edges import Edges

CoarseFate = Literal["kept", "split", "absorbed", "merged", "lost"]
FineFate = Literal["twin", "part", "merged", "born"]
COARSE_FATES: tuple[CoarseFate, ...] = ("kept", "split", "absorbed", "merged", "lost")
FINE_FATES: tuple[FineFate, ...] = ("twin", "part", "merged", "born")
HOLE_PROMPTS_MIN = 5
"""Prompts on which parent and child fire together, for the twin's silence there to say anything."""


@dataclass(frozen=True)
class CoarseLatent:
    """A coarse latent: its direct children, its twin among them, and what became of it.

    ``absorbed_by`` are children on whose prompts the twin is silent: of the prompts on which the
    latent and such a child fire, ``hole`` is the largest share without the twin (NaN where there
    is no twin with another child beside it, or too few prompts).
    """

    latent: int
    fate: CoarseFate
    children: tuple[int, ...]
    twin: int | None
    absorbed_by: tuple[int, ...]
    hole: float


@dataclass(frozen=True)
class FineLatent:
    """A fine latent: its direct parents, and where it comes from."""

    latent: int
    fate: FineFate
    parents: tuple[int, ...]


def coarse_fates(
    latents: Sequence[int],
    edges: Edges,
    coarse: ActivationColumns,
    fine: ActivationColumns,
    hole_min: float,
) -> list[CoarseLatent]:
    """Return what became of coarse latents; those of all direct parents must be among the edges.

    *lost*: no child. *absorbed*: a twin that is silent on at least ``hole_min`` of the prompts of
    another child. *split*: at least two children beside a twin, or two without one. *merged*: an
    only child that has other parents as well. *kept*: anything else, carried on as one latent.
    """
    kept, twins = edges.kept, edges.pairs.taken(edges.direct & edges.twin)
    twin_of = dict(zip(twins.coarse.tolist(), twins.fine.tolist(), strict=True))
    several = set(np.flatnonzero(np.bincount(kept.fine) > 1).tolist()) if len(kept.fine) else set()
    found = []
    for latent in latents:
        children = tuple(kept.fine[kept.coarse == latent].tolist())
        twin = twin_of.get(latent)
        others = tuple(child for child in children if child != twin)
        holes = {} if twin is None else _holes(latent, twin, others, coarse, fine)
        absorbed_by = tuple(child for child, share in holes.items() if share >= hole_min)
        fate = _coarse_fate(children, others, absorbed_by, several)
        hole = max(holes.values(), default=float("nan"))
        found.append(CoarseLatent(latent, fate, children, twin, absorbed_by, hole))
    return found


def _coarse_fate(
    children: tuple[int, ...],
    others: tuple[int, ...],
    absorbed_by: tuple[int, ...],
    several: set[int],
) -> CoarseFate:
    if not children:
        return "lost"
    if absorbed_by:
        return "absorbed"
    if len(others) >= 2:
        return "split"
    return "merged" if len(children) == 1 and children[0] in several else "kept"


def _holes(
    latent: int,
    twin: int,
    others: Sequence[int],
    coarse: ActivationColumns,
    fine: ActivationColumns,
) -> dict[int, float]:
    """Return for each other child the share of its prompts on which the twin is silent."""
    fires = coarse.values[:, [latent]].toarray().ravel() > 0
    carried_on = fine.values[:, [twin]].toarray().ravel() > 0
    found = {}
    for child in others:
        together = fires & (fine.values[:, [child]].toarray().ravel() > 0)
        if together.sum() >= HOLE_PROMPTS_MIN:
            found[child] = float((~carried_on[together]).mean())
    return found


def fine_fates(latents: Sequence[int], edges: Edges) -> list[FineLatent]:
    """Return where fine latents come from; those of all their parents must be among the edges.

    *born*: no parent. *merged*: several direct parents. *twin*: of its only parent. *part*: of its
    only parent, and no twin.
    """
    kept, twins = edges.kept, set(edges.pairs.fine[edges.direct & edges.twin].tolist())
    found = []
    for latent in latents:
        parents = tuple(kept.coarse[kept.fine == latent].tolist())
        fate: FineFate = "born"
        if parents:
            fate = "merged" if len(parents) > 1 else "twin" if latent in twins else "part"
        found.append(FineLatent(latent, fate, parents))
    return found
