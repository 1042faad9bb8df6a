"""The SAELens folder format: what a config means for the weights beside it.

Read against SAELens 6.54 (``SAE.encode`` of each architecture), and understood here rather than
there so that every tensor is applied or refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from loopscope.inputs.architectures import ARCHITECTURES, StoredArchitecture
from loopscope.inputs.saelens_config import SaelensConfig
from loopscope.state.failures import TerminalFailure
from loopscope.worker.mapped_weights import MappedFile


@dataclass(frozen=True)
class Weights:
    """Tensors of any dtype under the names of numerics, scaling folded in, and settings."""

    architecture: str
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, float] = field(default_factory=dict)
    apply_b_dec_to_input: bool = field(default=True, kw_only=True)
    mapped: MappedFile | None = field(default=None, kw_only=True)
    """The file in whose pages some of the tensors lie."""


def saelens_weights(config: SaelensConfig, state: Mapping[str, Tensor]) -> Weights:
    """Return the weights of a SAELens dictionary, scaling folded in.

    Raises ``TerminalFailure("UnsupportedDictionary")`` that names the tensor which this reader
    does not apply.
    """
    stored = ARCHITECTURES[config.architecture]
    tensors = {name: tensor.float() for name, tensor in state.items()}
    _drop_unit_scaling(tensors)
    _spread_out(stored, tensors)
    wanted = {name: stored.stored_name(name) for name in stored.tensors}
    named = {name: _tensor(tensors, place) for name, place in wanted.items()}
    unread = sorted(tensors.keys() - set(wanted.values()))
    if unread:
        raise _refusal(f"tensors {unread} have no meaning for architecture {config.architecture!r}")
    if config.rescale_acts_by_decoder_norm:
        named = _with_unit_decoder(named)
    return Weights(
        config.architecture,
        named,
        {"k": config.k} if config.k is not None else {},
        apply_b_dec_to_input=config.apply_b_dec_to_input,
    )


def _spread_out(stored: StoredArchitecture, tensors: dict[str, Tensor]) -> None:
    """Give each latent the number that is stored once for all of them."""
    for name, single in stored.one_for_all.items():
        if single in tensors:
            each = torch.ones_like(_tensor(tensors, stored.stored_name("b_enc")))
            tensors[stored.stored_name(name)] = each * tensors.pop(single)


def _drop_unit_scaling(tensors: dict[str, Tensor]) -> None:
    """Drop the fine-tuning scale of old SAELens versions where it is all ones; refuse it else."""
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        scale = tensors.pop(name, None)
        if scale is not None and not torch.allclose(scale, torch.ones_like(scale)):
            raise _refusal(f"tensor {name!r} is not all ones: fine-tuned scales are not applied")


def _with_unit_decoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold |W_dec| into the encoder, as ``fold_W_dec_norm`` does: the same activations.

    With ``rescale_acts_by_decoder_norm`` the choice of the top k, and the BatchTopK threshold,
    are in the unit of the rescaled pre-activation, so the threshold stays.
    """
    norm = tensors["w_dec"].norm(dim=-1).clamp(min=1e-8)
    return {
        **tensors,
        "w_enc": tensors["w_enc"] * norm,
        "b_enc": tensors["b_enc"] * norm,
        "w_dec": tensors["w_dec"] / norm[:, None],
    }


def _tensor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise _refusal(f"the weights lack {name}; found {sorted(tensors)}")
    return tensors[name]


def _refusal(what: str) -> TerminalFailure:
    return TerminalFailure(
        "UnsupportedDictionary", f"{what}; name a dictionary that can be applied exactly"
    )
