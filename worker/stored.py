"""Tensors of other layouts than SAELens' own, under our names, every scaling folded in."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from loopscope.inputs.architectures import ARCHITECTURES
from loopscope.inputs.layouts.layout import Contents, Stored
from loopscope.specs.payloads.references import DictionaryReading
from loopscope.state.failures import TerminalFailure
from loopscope.worker.saelens import Weights


def stored_weights(
    contents: Contents,
    architecture: str,
    reading: DictionaryReading,
    tensors: Mapping[str, Tensor],
) -> Weights:
    """Return the weights that the tensors of a layout's files make.

    Raises ``TerminalFailure("UnsupportedDictionary")`` that names the tensor which is missing, or
    which this layout does not have.
    """
    needed = ARCHITECTURES[architecture].tensors
    places = contents.places(needed, tensors)
    read = {name for name, _ in places.values()}
    extra = sorted(tensors.keys() - read - contents.ignored)
    if extra:
        raise _refusal(f"tensor {extra[0][:80]!r} has no meaning for a {architecture} dictionary")
    named = {ours: _ours(tensors[name], stored) for ours, (name, stored) in places.items()}
    if "w_enc" not in named:
        raise _refusal(f"the weights have no encoder; found {sorted(tensors)}")
    d_in, d_sae = named["w_enc"].shape
    sizes = {"d_in": d_in, "d_sae": d_sae}
    if "threshold" in needed and "threshold" in reading:
        named.setdefault("threshold", torch.tensor(reading["threshold"]))
    for ours, axes in needed.items():
        if ours not in named and ours in contents.absent_is_zero:
            named[ours] = torch.zeros([sizes[axis] for axis in axes])
        elif ours not in named:
            raise _refusal(f"the weights have no {ours}; found {sorted(tensors)}")
        elif named[ours].ndim == 0:
            named[ours] = named[ours].float().expand(sizes[axes[0]])
    return Weights(
        architecture,
        _rescaled(named, reading.get("input_scale", 1.0), reading.get("encoder_scale", 1.0)),
        _settings(reading),
        apply_b_dec_to_input=reading.get("apply_b_dec_to_input", True),
    )


def _ours(tensor: Tensor, stored: Stored) -> Tensor:
    """Return a stored tensor as this package has it, float32 where it is computed with."""
    if stored.summed:
        tensor = tensor.float().sum(dim=1)
    if stored.exponential:
        tensor = tensor.float().exp()
    return tensor.mT if stored.transposed else tensor


def _settings(reading: DictionaryReading) -> dict[str, float]:
    """Return the numbers that an architecture has beside its tensors."""
    settings: dict[str, float] = {"k": reading["k"]} if "k" in reading else {}
    if "heads" in reading:
        settings |= {"heads": reading["heads"], "epsilon": reading["epsilon"]}
    return settings


def _rescaled(
    tensors: Mapping[str, Tensor], scale: float, encoder_scale: float
) -> dict[str, Tensor]:
    """Fold the factor of the input into the weights (SAELens' fold_activation_norm_scaling_factor).

    Activations are those of the scaled input, the reconstruction is in the unit of the input.
    """
    if scale == encoder_scale == 1.0:
        return dict(tensors)
    return {
        **tensors,
        "w_enc": tensors["w_enc"].float() * (scale * encoder_scale),
        "w_dec": tensors["w_dec"].float() / scale,
        "b_dec": tensors["b_dec"].float() / scale,
    }


def _refusal(what: str) -> TerminalFailure:
    return TerminalFailure(
        "UnsupportedDictionary", f"{what}; name a dictionary that can be applied exactly"
    )
