"""SAELens' cfg.json, of version 6 and of the versions before."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from loopscope.specs.activation_scaling import advice_on

ARCHITECTURES = ("standard", "jumprelu", "topk", "batchtopk")
_RESIDUAL_HOOK = re.compile(r"blocks\.\d+\.hook_resid_(pre|post)")


@dataclass(frozen=True)
class SaelensConfig:
    """What decides how the weights are used. ``hook_name`` is None where it is not recorded."""

    architecture: str
    d_in: int
    d_sae: int
    hook_name: str | None


def read_saelens_config(config: dict[str, Any]) -> SaelensConfig:
    """Return the facts of a ``cfg.json``; ``ValueError`` names what is unsupported."""
    architecture = _architecture(config)
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture {str(architecture)[:60]!r} is not supported; "
            f"supported are {', '.join(ARCHITECTURES)}"
        )
    _refuse_unapplied(config, architecture)
    d_in, d_sae = _positive(config.get("d_in"), "d_in"), _positive(config.get("d_sae"), "d_sae")
    if architecture == "topk" and _positive(_k(config), "k") > d_sae:
        raise ValueError(f"k is {_k(config)}, but there are only {d_sae} latents")
    return SaelensConfig(architecture, d_in, d_sae, _hook(config))


def _architecture(config: dict[str, Any]) -> Any:
    """Before SAELens 6 a TopK dictionary was a standard one with another activation."""
    architecture = config.get("architecture", "standard")
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    if architecture == "standard" and activation == "topk":
        return "topk"
    if activation != "relu" and (architecture, activation) != ("topk", "topk"):
        raise ValueError(f"activation function {str(activation)[:60]!r} is not supported")
    return architecture


def _refuse_unapplied(config: dict[str, Any], architecture: str) -> None:
    """Refuse each flag that would change activations and that no loader applies."""
    normalisation = config.get("normalize_activations") or "none"
    if normalisation != "none":
        raise ValueError(
            f"normalize_activations {str(normalisation)[:60]!r} is not supported: "
            f"{advice_on(normalisation)}"
        )
    reshape = config.get("reshape_activations") or "none"
    if reshape != "none":
        raise ValueError(f"reshape_activations {str(reshape)[:60]!r} is not supported")
    if config.get("rescale_acts_by_decoder_norm") and architecture not in ("topk", "batchtopk"):
        raise ValueError(
            f"rescale_acts_by_decoder_norm is not supported for architecture {architecture!r}"
        )


def _k(config: dict[str, Any]) -> Any:
    options = config.get("activation_fn_kwargs")
    return options["k"] if isinstance(options, dict) and "k" in options else config.get("k")


def _positive(value: Any, name: str) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or value <= 0:
        raise ValueError(f"expected {name} to be a positive number, found {str(value)[:60]}")
    return value


def _hook(config: dict[str, Any]) -> str | None:
    metadata = config.get("metadata")
    places = (metadata if isinstance(metadata, dict) else {}, config)
    hooks = (place.get(name) for place in places for name in ("hook_name", "hook_point"))
    hook = next((hook for hook in hooks if hook is not None), None)
    if hook is not None and not (isinstance(hook, str) and _RESIDUAL_HOOK.fullmatch(hook)):
        raise ValueError(
            f"it was trained at {str(hook)[:80]!r}; supported are dictionaries of "
            "hook_resid_pre and hook_resid_post"
        )
    return hook
