"""SAELens' cfg.json, of version 6 and of the versions before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loopscope.specs.activation_scaling import advice_on

ARCHITECTURES = ("standard", "jumprelu", "topk", "batchtopk")


@dataclass(frozen=True)
class SaelensConfig:
    """What decides how the weights are used; ``said`` is what else the file says."""

    architecture: str
    d_in: int
    d_sae: int
    said: dict[str, Any]


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
    return SaelensConfig(architecture, d_in, d_sae, _said(config))


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
    for flag in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm"):
        if not isinstance(config.get(flag, False), bool):
            raise ValueError(f"expected {flag} to be true or false, found {config[flag]!r}"[:120])
    if config.get("d_out") not in (None, config.get("d_in")):
        raise ValueError("d_out is not d_in: it does not write the residual stream that it reads")
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


def _said(config: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of ``metadata``, which before SAELens 6 stood beside the others."""
    metadata = config.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise ValueError(f"expected metadata to be an object, found {str(metadata)[:60]}")
    return {**config, **{k: v for k, v in (metadata or {}).items() if v is not None}}
