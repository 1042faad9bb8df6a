"""A stream at one hook: one forward pass that ends there, checked before it is used."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loopscope.numerics.model.batching import TokenBatch

_AT_BRIDGE = {"hook_mlp_in": "ln2.hook_in"}
"""TransformerBridge has a point of its own for ``hook_mlp_in``, which is off until it is switched
on; it is what the norm before the MLP reads."""
ROWS_PER_BLOCK = 8_192
"""Rows converted to float64 at a time in the statistics."""


class HookNeverFired(Exception):
    """The hook was not called exactly once in a forward pass."""


class NotFinite(Exception):
    """A tensor holds NaN or infinity, or does not have the shape that it must have.

    ``row`` is the first row of the batch that does, where that is known.
    """

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


def first_not_finite(
    values: Float[Tensor, "rows ..."], where: Bool[Tensor, "rows ..."] | None = None
) -> int | None:
    """Return the first row with NaN or infinity (only ``where`` that is true), or None."""
    broken = ~torch.isfinite(values)
    if where is not None:
        broken &= where
    rows = broken.flatten(1).any(dim=1).nonzero()
    return int(rows[0]) if len(rows) else None


class HookedModel(Protocol):
    """What capture needs of a model: TransformerLens's ``TransformerBridge`` has it."""

    def run_with_hooks(self, *args: Any, **kwargs: Any) -> Any:
        """Run a forward pass with temporary hooks ``fwd_hooks=[(name, function)]``."""


class _Reached(Exception):
    """Ends the forward pass at the last hook: nothing behind it, logits least of all, is run."""


@torch.no_grad()
def residual_at_hook(
    model: HookedModel, hook: str, batch: TokenBatch, d_model: int
) -> Float[Tensor, "rows width d_model"]:
    """Return the residual stream at ``hook`` in float32; padding holds arbitrary numbers.

    Raises HookNeverFired when the hook is not reached, and NotFinite when the value has a wrong
    shape or is not finite on a real token.
    """
    return check_residual(residuals_at_hooks(model, [hook], batch)[hook], batch, d_model, hook)


@torch.no_grad()
def residuals_at_hooks(
    model: HookedModel, hooks: Sequence[str], batch: TokenBatch
) -> dict[str, Float[Tensor, "rows width d_model"]]:
    """Return the residual stream at each of several hooks in float32, from one forward pass.

    What stands at a hook does not depend on how far the pass goes on behind it. The values are
    not checked yet (``check_residual``). Raises HookNeverFired when a hook is not reached.
    """
    found: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    with contextlib.suppress(_Reached):
        model.run_with_hooks(
            batch.tokens,
            fwd_hooks=[(_at_bridge(hook), _keep_and_stop(hook, found)) for hook in found],
            attention_mask=batch.mask.long(),
            position_ids=batch.position_ids,
            use_cache=False,
            return_type=None,
        )
    for hook, values in found.items():
        if len(values) != 1:
            raise HookNeverFired(
                f"{hook} fired {len(values)} times in one forward pass, expected once"
            )
    # heads have an axis of their own in some families; flattened, one follows the other
    return {hook: values[0].flatten(2).float() for hook, values in found.items()}


def _at_bridge(hook: str) -> str:
    block, _, point = hook.rpartition(".")
    return f"{block}.{_AT_BRIDGE.get(point, point)}"


def _keep_and_stop(name: str, found: dict[str, list[Tensor]]) -> Callable[..., None]:
    def keep(value: Tensor, hook: object) -> None:
        found[name].append(value.detach().clone())  # the pass goes on, perhaps in place
        if all(found.values()):
            raise _Reached

    return keep


def check_residual(
    residual: Float[Tensor, "rows width d_model"], batch: TokenBatch, d_model: int, hook: str
) -> Float[Tensor, "rows width d_model"]:
    """Return ``residual`` if it has one finite vector per token. Raises NotFinite."""
    expected = (*batch.tokens.shape, d_model)
    if tuple(residual.shape) != expected:
        raise NotFinite(f"{hook} returned shape {tuple(residual.shape)}, expected {expected}")
    row = first_not_finite(residual, batch.mask[:, :, None])
    if row is not None:
        raise NotFinite(f"{hook} returned NaN or infinity on a real token", row)
    return residual


def rows_without_bos(
    residual: Float[Tensor, "rows width d_model"], batch: TokenBatch
) -> list[Float[Tensor, "tokens d_model"]]:
    """Return each sequence's vectors in token order, without BOS and padding."""
    keep = batch.without_bos
    return [residual[row][keep[row]] for row in range(residual.shape[0])]


@dataclass(frozen=True)
class NormStatistics:
    """Norms of a population of residual vectors; the unit of steering strengths.

    ``median_centred_norm`` is the median of ‖h − mean h‖: where the stream carries a large
    constant offset it is the part that differs between tokens.
    """

    mean: Float[Tensor, " d_model"]
    mean_norm: float
    median_norm: float
    median_centred_norm: float
    n_tokens: int


def norm_statistics(rows: Float[Tensor, "tokens d_model"]) -> NormStatistics:
    """Return mean and norms, summed in float64. Raises ValueError without rows."""
    if rows.shape[0] == 0:
        raise ValueError("norms of an empty population are undefined")
    blocks = torch.split(rows, ROWS_PER_BLOCK)
    total = torch.stack([block.double().sum(dim=0) for block in blocks]).sum(dim=0)
    mean = total / rows.shape[0]
    norms = torch.cat([block.double().norm(dim=1) for block in blocks])
    centred = torch.cat([(block.double() - mean).norm(dim=1) for block in blocks])
    return NormStatistics(
        mean=mean.float(),
        mean_norm=float(norms.mean()),
        median_norm=float(np.median(norms.cpu().numpy())),
        median_centred_norm=float(np.median(centred.cpu().numpy())),
        n_tokens=int(rows.shape[0]),
    )
