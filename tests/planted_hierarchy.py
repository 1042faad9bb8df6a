"""A hierarchy of latents over several dictionaries that is known: what split, merged, was born."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from loopscope.numerics.latents.mapping import ActivationColumns
from loopscope.numerics.latents.splits import DiscoverRows, split_rows
from loopscope.numerics.splitting.edges import NearPairs
from loopscope.numerics.splitting.fates import CoarseFate

WIDTH = 384
PROMPTS = 600
ROOTS = 40
DECOYS = 6
SHARES: dict[CoarseFate, float] = {
    "kept": 0.4, "split": 0.3, "absorbed": 0.1, "merged": 0.12, "lost": 0.08,
}  # fmt: skip

Floats = NDArray[np.float64]


@dataclass
class Level:
    """One dictionary: decoder rows [latents, width] and activations [prompts, latents]."""

    rows: list[Floats] = field(default_factory=list)
    activations: list[Floats] = field(default_factory=list)

    def add(self, row: Floats, activation: Floats) -> int:
        """Add a latent and return its number."""
        self.rows.append(row / np.linalg.norm(row))
        self.activations.append(activation)
        return len(self.rows) - 1

    @property
    def prompts(self) -> DiscoverRows:
        """The prompts of the level, every other one a target prompt."""
        condition = np.array(["target", "neutral"] * (PROMPTS // 2))
        values = scipy.sparse.csr_array(np.stack(self.activations, axis=1))
        return split_rows(values, condition, np.full(PROMPTS, "discover"))[0]

    @property
    def columns(self) -> ActivationColumns:
        """The same as columns."""
        return ActivationColumns.of(self.prompts)


@dataclass
class Step:
    """What was planted between two neighbouring levels."""

    edges: set[tuple[int, int]] = field(default_factory=set)
    fates: dict[int, CoarseFate] = field(default_factory=dict)
    born: set[int] = field(default_factory=set)
    merged: set[int] = field(default_factory=set)


@dataclass
class Hierarchy:
    """Levels, coarsest first, and what was planted between each two."""

    levels: list[Level]
    steps: list[Step]


def planted(seed: int, levels: int = 3) -> Hierarchy:
    """Return a hierarchy; noise moves rows to a cosine of about 0.95 and silences 2 % of firings.

    Of what splits two in five stay beside their parts, so that the next level has latents within
    latents; decoys are near and not alike, or alike and not near.
    """
    draw = np.random.default_rng(seed)
    first = Level()
    for _ in range(ROOTS):
        first.add(_direction(draw), _firing(draw, 0.08))
    found = Hierarchy([first], [])
    for _ in range(levels - 1):
        level, step = _refined(found.levels[-1], draw)
        found.levels.append(level)
        found.steps.append(step)
    return found


def near(coarse: Level, fine: Level, cosine_min: float) -> NearPairs:
    """Return the pairs at a cosine of at least ``cosine_min``."""
    cosines = np.stack(coarse.rows) @ np.stack(fine.rows).T
    left, right = np.nonzero(cosines >= cosine_min)
    return NearPairs(left, right, cosines[left, right])


def _refined(level: Level, draw: np.random.Generator) -> tuple[Level, Step]:
    fine, step = Level(), Step()
    order = draw.permutation(len(level.rows)).tolist()
    names, shares = list(SHARES), list(SHARES.values())
    while order:
        latent = order.pop()
        fate: CoarseFate = draw.choice(names, p=shares)
        if fate == "merged" and not order:
            fate = "kept"
        step.fates[latent] = fate
        row, fires = level.rows[latent], level.activations[latent]
        for child in _children(fate, row, fires, fine, draw):
            step.edges.add((latent, child))
        if fate == "merged":
            other = order.pop()
            step.fates[other] = "merged"
            both = np.maximum(fires, level.activations[other])
            child = fine.add(_moved(row + level.rows[other], draw), _flipped(both, draw))
            step.edges |= {(latent, child), (other, child)}
            step.merged.add(child)
    for number in range(DECOYS):
        latent = int(draw.integers(len(level.rows)))
        near_by = _beside(level.rows[latent], 0.4, draw)
        step.born.add(fine.add(near_by, _firing(draw, 0.06)))
        alike = _flipped(level.activations[latent], draw)
        step.born.add(fine.add(_direction(draw), alike))
        step.born.add(fine.add(_direction(draw), _firing(draw, 0.02 + 0.01 * number)))
    return fine, step


def _children(
    fate: CoarseFate, row: Floats, fires: Floats, fine: Level, draw: np.random.Generator
) -> list[int]:
    if fate == "kept":
        return [fine.add(_moved(row, draw), _flipped(fires, draw))]
    if fate == "split":
        parts = draw.integers(draw.integers(2, 5), size=PROMPTS)
        stays = draw.random() < 0.4
        return [
            *([fine.add(_moved(row, draw), _flipped(fires, draw))] if stays else []),
            *(
                fine.add(
                    _beside(row, draw.uniform(0.45, 0.65), draw),
                    _flipped(fires * (parts == p), draw),
                )
                for p in range(parts.max() + 1)
            ),
        ]
    if fate == "absorbed":
        narrow = draw.random(PROMPTS) < 0.35
        return [
            fine.add(_moved(row, draw), _flipped(fires * ~narrow, draw)),
            fine.add(_beside(row, 0.6, draw), _flipped(fires * narrow, draw)),
        ]
    return []


def _direction(draw: np.random.Generator) -> Floats:
    row = draw.standard_normal(WIDTH)
    return np.asarray(row / np.linalg.norm(row))


def _beside(row: Floats, cosine: float, draw: np.random.Generator) -> Floats:
    """Return a unit row at this cosine, in any direction across."""
    across = _direction(draw)
    across -= (across @ row) * row
    return cosine * row + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across)


def _moved(row: Floats, draw: np.random.Generator) -> Floats:
    return _beside(row / np.linalg.norm(row), draw.uniform(0.92, 0.98), draw)


def _firing(draw: np.random.Generator, rate: float) -> Floats:
    return (draw.random(PROMPTS) < rate) * draw.uniform(1, 3, PROMPTS)


def _flipped(fires: Floats, draw: np.random.Generator) -> Floats:
    """Return the activations with other strengths: 2 % of them silent, a few where none was."""
    kept = fires * draw.uniform(0.8, 1.2, PROMPTS) * (draw.random(PROMPTS) >= 0.02)
    return kept + (draw.random(PROMPTS) < 0.002) * draw.uniform(0.5, 1, PROMPTS)
