"""The cells of a steering run: which arms exist, their vectors, and the rows of each batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from numerics.sampling import random_direction
from state.failures import TerminalFailure


@dataclass(frozen=True)
class Cell:
    """One arm at one strength; ``strength`` is in the declared unit, 0 for ``none``."""

    arm: str
    strength: float


@dataclass(frozen=True)
class Row:
    """One text to generate: opening (its index), cell (its index) and sample."""

    opening: int
    sample: int
    cell: int


@dataclass(frozen=True)
class Arms:
    """The unit vector of each arm (none for ``none``), and why others are missing."""

    vectors: dict[str, Tensor]
    missing: dict[str, str]
    d_model: int

    def cells(self, requested: Sequence[str], strengths: Sequence[float]) -> list[Cell]:
        """Return ``none`` once, then each arm at each strength, in the order of the spec."""
        cells = []
        for name in requested:
            if name == "none":
                cells.append(Cell("none", 0.0))
            for arm in self.vectors:
                if arm == name or (name == "random" and arm.startswith("random-")):
                    cells.extend(Cell(arm, float(strength)) for strength in strengths)
        return cells

    def added(self, cells: Sequence[Cell], scale: float) -> Float[Tensor, "cells d_model"]:
        """Return strength · scale · unit vector of each cell; zero for ``none``."""
        zero = torch.zeros(self.d_model)
        return torch.stack(
            [self.vectors.get(cell.arm, zero) * (cell.strength * scale) for cell in cells]
        )

    def cosines(self) -> dict[str, float]:
        """Return the cosine of each pair of the arms coarse, fine and multi that exist."""
        pairs = (("coarse", "fine"), ("coarse", "multi"), ("fine", "multi"))
        return {
            f"{a}~{b}": float(self.vectors[a].double() @ self.vectors[b].double())
            for a, b in pairs
            if a in self.vectors and b in self.vectors
        }


def build_arms(payload: dict[str, Any], mapping: Path, d_model: int) -> Arms:
    """Read the mapping's directions and draw the random ones.

    Raises TerminalFailure ``ShapeMismatch`` when a direction is not as wide as the model.
    """
    path = mapping / "directions.safetensors"
    directions = load_file(path) if path.exists() else {}
    why = json.loads((mapping / "directions.json").read_text()).get("missing", {})
    vectors: dict[str, Tensor] = {}
    missing: dict[str, str] = {}
    for name in payload["arms"]:
        if name == "random":
            for draw in range(payload["randomDraws"]):
                seed = payload["sampling"]["seed"]
                vectors[f"random-{draw}"] = random_direction(seed, draw, d_model)
        elif name in directions:
            vectors[name] = directions[name].float()
        elif name != "none":
            missing[name] = why.get(name, "the mapping holds no such direction")
    for name, vector in vectors.items():
        if tuple(vector.shape) != (d_model,):
            raise TerminalFailure(
                "ShapeMismatch", f"direction {name} is {tuple(vector.shape)}, the model {d_model}"
            )
    return Arms(vectors, missing, d_model)


def strength_scale(payload: dict[str, Any], capture: Path) -> float:
    """Return the residual norm that strength 1 stands for."""
    unit = payload["strengthUnit"]
    if unit == "absolute":
        return 1.0
    norms = json.loads((capture / "norms.json").read_text())
    return float(norms["median_norm" if unit == "residualNorm" else "median_centred_norm"])


def plan_rows(
    opening_lengths: Sequence[int], samples: int, n_cells: int, rows_max: int
) -> list[list[Row]]:
    """Return the rows of each generation batch, a function of the payload alone.

    All cells of one sample of one opening ride together (a group larger than ``rows_max`` is
    split); openings of similar length share a batch; batches are about equally large.
    """
    order = sorted(range(len(opening_lengths)), key=lambda i: (opening_lengths[i], i))
    groups = [
        [Row(opening, sample, cell) for cell in range(n_cells)]
        for opening in order
        for sample in range(samples)
    ]
    if n_cells > rows_max:
        return [g[i : i + rows_max] for g in groups for i in range(0, n_cells, rows_max)]
    groups_max = rows_max // max(n_cells, 1)
    n_batches = -(-len(groups) // groups_max)
    share = -(-len(groups) // n_batches) if n_batches else 1
    return [
        [row for group in groups[i : i + share] for row in group]
        for i in range(0, len(groups), share)
    ]
