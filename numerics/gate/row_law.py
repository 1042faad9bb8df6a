"""The normal law of a decoder's rows or of the residual stream: what control rows spread like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics.latents.mapping import ROWS_PER_BLOCK, inverse_norms
from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.statistics.multiple_tests import Floats

RELATIVE_VARIANCE_MIN = 1e-12
MOMENT_DRAWS, MOMENT_STEPS = 2_048, 30


@dataclass(frozen=True)
class RowLaw:
    """A normal law of rows: mean [d_in], axes [d_in, rank] (orthonormal), variances falling."""

    mean: Floats
    axes: Floats
    variances: Floats

    @staticmethod
    def of_decoder(
        rows: Float[Tensor, "rows d_in"], on_block: Callable[[int], None] = lambda done: None
    ) -> RowLaw:
        """Return a law whose rows, made unit, have mean and covariance of the decoder's unit rows.

        Rows of norm zero are left out. The axes are those of the covariance. ``on_block`` is
        called with the number of rows that were read, of twice as many as there are.
        """
        return _of_directions(_law(rows, unit=True, on_block=on_block))

    @staticmethod
    def of_stream(rows: Float[Tensor, "rows d_in"]) -> RowLaw:
        """Return the covariance of residual vectors; their mean is what dictionaries subtract."""
        law = _law(rows, unit=False)
        return RowLaw(np.zeros_like(law.mean), law.axes, law.variances)

    @property
    def effective_dimensions(self) -> float:
        """Return the participation ratio of the variances; 0 where nothing varies."""
        squares = float((self.variances**2).sum())
        return float(self.variances.sum()) ** 2 / squares if squares else 0.0


def _law(
    rows: Float[Tensor, "rows d_in"],
    *,
    unit: bool,
    on_block: Callable[[int], None] = lambda done: None,
) -> RowLaw:
    """Pass twice over the rows in blocks, float64 sums: mean, then covariance about it."""
    width, device = rows.shape[1], rows.device
    total = torch.zeros(width, dtype=torch.float64, device=device)
    known_rows = 0.0
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        block, known = _directions(rows[start : start + ROWS_PER_BLOCK], unit=unit)
        total += block.sum(dim=0, dtype=torch.float64)
        known_rows += float(known.sum())
        on_block(start + len(block))
    number = max(1.0, known_rows)
    mean = total / number
    squares = torch.zeros(width, width, dtype=torch.float64, device=device)
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        block, known = _directions(rows[start : start + ROWS_PER_BLOCK], unit=unit)
        centred = (block - mean.to(rows)) * known[:, None]
        squares += (centred.T @ centred).double()
        on_block(len(rows) + start + len(block))
    variances, axes = np.linalg.eigh(squares.cpu().numpy() / number)
    variances, axes = variances[::-1], axes[:, ::-1]
    kept = variances > RELATIVE_VARIANCE_MIN * max(float(variances[0]), 1e-300)
    return RowLaw(mean.cpu().numpy(), axes[:, kept].copy(), variances[kept].copy())


def _directions(rows: Float[Tensor, "rows d_in"], *, unit: bool) -> tuple[Tensor, Tensor]:
    """Return the rows, of length 1 if ``unit``, and 1 for those that are not zero, else 0."""
    inverse = inverse_norms(rows)
    known = (inverse > 0).to(rows)
    return rows * (inverse if unit else known)[:, None], known


def _of_directions(wanted: RowLaw) -> RowLaw:
    """Return the law whose draws have mean and variances of ``wanted`` once their norm is 1.

    Dividing by the norm takes from what varies most, so a law that already has the moments of
    unit rows would lose some twice: they are solved for over fixed draws. In many dimensions the
    norm hardly varies, and hardly anything changes.
    """
    if not wanted.variances.size:
        return wanted
    z = keyed_generator("row law").standard_normal((MOMENT_DRAWS, len(wanted.variances)))
    target = wanted.mean @ wanted.axes
    rest = wanted.mean - wanted.axes @ target
    mean, variances, length = target.copy(), wanted.variances.copy(), 1.0
    for _ in range(MOMENT_STEPS):
        rows = mean + z * np.sqrt(variances)
        inverse = 1 / np.sqrt((rows**2).sum(axis=1) + length**2 * (rest @ rest)).clip(min=1e-12)
        unit = rows * inverse[:, None]
        mean = mean + target - unit.mean(axis=0)
        length *= 1 / max(1e-12, length * float(inverse.mean()))
        variances = variances * wanted.variances / unit.var(axis=0).clip(min=1e-300)
        scale = np.sqrt((mean**2).sum() + variances.sum() + length**2 * (rest @ rest))
        mean, variances, length = mean / scale, variances / scale**2, length / scale
    return RowLaw(wanted.axes @ mean + length * rest, wanted.axes, variances)
