"""The cells of a steering run (an arm at a strength), and the rows of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.worker.stages.steering.arms import Arms


@dataclass(frozen=True)
class Cell:
    """One arm at one strength.

    ``strength`` is in the declared unit, ``norm`` the length of the vector that is added to the
    residual stream; both are 0 for ``none``, ``systemPrompt`` and ``placeboPrompt``.
    """

    arm: str
    strength: float
    norm: float = 0.0


@dataclass(frozen=True)
class Row:
    """One text to generate: opening (its index), cell (its index) and sample."""

    opening: int
    sample: int
    cell: int


class TextOutcomes(TypedDict):
    """What the unsteered model makes of a text; None where it is not known.

    ``log_perplexity`` (nats per token), ``probe`` (P(target)), ``target_latent`` (mean activation
    of the steered anchor).
    """

    log_perplexity: float | None
    probe: float | None
    target_latent: float | None


class GeneratedText(TypedDict):
    """A row's tokens, and how many were drawn after a token that was steered.

    ``opening_steered`` counts the steered tokens of its opening. Both as the hook saw them.
    ``outcomes`` is what reading the text again found. ``after_opening`` is the final state from
    which its first token was drawn, as ``shift`` writes it: of the first sample alone.
    """

    tokens: list[int]
    after_steered: int
    opening_steered: int
    outcomes: TextOutcomes
    after_opening: str | None


def unsteered_cells(arms: Sequence[str], prompts: Sequence[str]) -> list[Cell]:
    """Return the cells that add nothing: ``none`` where asked for, and the arms that are words."""
    unsteered = [*(["none"] if "none" in arms else []), *prompts]
    return [Cell(arm, 0.0) for arm in unsteered]


def added_vectors(arms: Arms, cells: Sequence[Cell], width: int) -> Float[Tensor, "cells width"]:
    """Return what each cell adds to the stream of ``width``: norm times unit vector, or zero."""
    zero = torch.zeros(width)
    return torch.stack([arms.vectors.get(cell.arm, zero) * cell.norm for cell in cells])


def plan_rows(
    opening_lengths: Sequence[int],
    samples: int,
    n_cells: int,
    rows_max: int,
    openings: Sequence[int] | None = None,
) -> list[list[Row]]:
    """Return the rows of each generation batch, a function of the payload alone.

    All cells of one sample of one opening ride together (a group larger than ``rows_max`` is
    split); openings of similar length share a batch; batches are about equally large. ``openings``
    are those of a block (their places), by default all.
    """
    asked = range(len(opening_lengths)) if openings is None else openings
    order = sorted(asked, key=lambda i: (opening_lengths[i], i))
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
