"""SAELens' cfg.json, of version 6 and of the versions before: the only reader of it.

Read against SAELens 6.54 (``handle_config_defaulting`` and the config class of each architecture).
A file means here what it means there, or is refused by name; a flag is never silently skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from loopscope.inputs.architectures import ARCHITECTURES, REFUSED
from loopscope.specs.activation_scaling import advice_on
from loopscope.specs.json_values import Json, JsonObject

DECIDING = frozenset(
    """
    architecture activation_fn activation_fn_kwargs k d_in d_sae d_out apply_b_dec_to_input
    normalize_activations reshape_activations rescale_acts_by_decoder_norm
    """.split()  # noqa: SIM905 - words read better than quotes
)
"""The fields that decide what the weights compute, under their names of version 6."""
SHOWN_CHARACTERS_MAX = 60
_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
_MAJOR = re.compile(r"v?(\d+)(?:[.!+a-z-].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class SaelensConfig:
    """What decides how the weights are used; ``said`` holds all other fields of the file.

    ``k`` is the number of active latents where an architecture chooses so many, else None.
    """

    architecture: str
    d_in: int
    d_sae: int
    d_out: int
    k: int | None
    apply_b_dec_to_input: bool
    rescale_acts_by_decoder_norm: bool
    said: JsonObject


def read_saelens_config(config: Mapping[str, Json]) -> SaelensConfig:
    """Return what a ``cfg.json`` means; ``ValueError`` names what is unsupported."""
    metadata = _metadata(config)
    before_6 = _is_before_6(config, metadata)
    named = {_RENAMED.get(name, name): value for name, value in config.items()}
    architecture = _architecture(named, before_6=before_6)
    transcoder = ARCHITECTURES[architecture].transcoder
    _refuse_unapplied(named, metadata, before_6=before_6)
    d_in, d_sae = _positive(named.get("d_in"), "d_in"), _positive(named.get("d_sae"), "d_sae")
    return SaelensConfig(
        architecture,
        d_in,
        d_sae,
        _d_out(named, d_in, transcoder=transcoder),
        _k(named, d_sae, before_6=before_6) if ARCHITECTURES[architecture].chooses_k else None,
        apply_b_dec_to_input=_applied_to_input(named, transcoder=transcoder),
        rescale_acts_by_decoder_norm=_rescaled(named, architecture),
        said=_said(config, metadata, before_6=before_6),
    )


def _metadata(config: Mapping[str, Json]) -> JsonObject:
    metadata = config.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise ValueError(f"expected metadata to be an object, found {_short(metadata)}")
    return metadata or {}


def _is_before_6(config: Mapping[str, Json], metadata: Mapping[str, Json]) -> bool:
    """Whether the file has the form of SAELens 5 and older, as one without a version has."""
    version = config.get("sae_lens_version") or metadata.get("sae_lens_version")
    if not version:
        return True
    found = _MAJOR.fullmatch(version) if isinstance(version, str) else None
    if found is None:
        raise ValueError(f"expected sae_lens_version to be a version, found {_short(version)}")
    return int(found[1]) < 6


def _architecture(named: Mapping[str, Json], *, before_6: bool) -> str:
    """Return the architecture; before SAELens 6 a TopK SAE was a standard one by activation."""
    architecture = named.get("architecture", "standard" if before_6 else None)
    activation = named.get("activation_fn") or "relu"
    if before_6 and (architecture, activation) == ("standard", "topk") and _own_k(named):
        return "topk"
    if isinstance(architecture, str) and architecture in REFUSED:
        raise ValueError(
            f"architecture {_short(architecture)} is not supported: {REFUSED[architecture]}"
        )
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture {_short(architecture)} is not supported; "
            f"supported are {', '.join(ARCHITECTURES)}"
        )
    if activation not in ARCHITECTURES[architecture].activations:
        raise ValueError(
            f"activation_fn {_short(activation)} is not supported for architecture {architecture!r}"
        )
    return architecture


def _own_k(named: Mapping[str, Json]) -> bool:
    """Whether a file of SAELens 5 and older brings the ``k`` of its activation."""
    options = named.get("activation_fn_kwargs")
    return isinstance(options, dict) and options.get("k") is not None


def _k(named: Mapping[str, Json], d_sae: int, *, before_6: bool) -> int:
    """Return ``k``: version 6 has a field for it, and asks the activation's options no more."""
    options = named.get("activation_fn_kwargs") if before_6 else None
    ours = options["k"] if isinstance(options, dict) and "k" in options else named.get("k")
    k = _positive(ours, "k")
    if k > d_sae:
        raise ValueError(f"k is {k}, but there are only {d_sae} latents")
    return k


def _refuse_unapplied(
    named: Mapping[str, Json], metadata: Mapping[str, Json], *, before_6: bool
) -> None:
    """Refuse each field that would change activations and that no loader applies."""
    normalisation = named.get("normalize_activations") or "none"
    if normalisation != "none":
        meant = "expected_average_only_in" if normalisation is True else normalisation
        raise ValueError(
            f"normalize_activations {_short(normalisation)} is not supported: {advice_on(meant)}"
        )
    hook = named.get("hook_name") or metadata.get("hook_name")
    by_hook = "hook_z" if before_6 and isinstance(hook, str) and "hook_z" in hook else "none"
    reshape = named.get("reshape_activations") or by_hook
    of_heads = not isinstance(hook, str) or hook.endswith("hook_z")
    if reshape != "none" and not (reshape == "hook_z" and of_heads):
        raise ValueError(
            f"reshape_activations {_short(reshape)} is not supported: heads stand one after the "
            "other at hook_z, and nothing else is reshaped"
        )


def _d_out(named: Mapping[str, Json], d_in: int, *, transcoder: bool) -> int:
    if transcoder:
        return _positive(named.get("d_out"), "d_out")
    if named.get("d_out") not in (None, d_in):
        raise ValueError("d_out is not d_in: only a transcoder writes another place than it reads")
    return d_in


def _applied_to_input(named: Mapping[str, Json], *, transcoder: bool) -> bool:
    applied = _flag(named, "apply_b_dec_to_input", default=True)
    if transcoder and applied:
        raise ValueError(
            "apply_b_dec_to_input must be false in a transcoder: b_dec belongs where it writes"
        )
    return applied


def _rescaled(named: Mapping[str, Json], architecture: str) -> bool:
    name = "rescale_acts_by_decoder_norm"
    known = ARCHITECTURES[architecture].rescaled
    if known == "required" and name not in named:
        raise ValueError(
            f"{name} is missing: SAELens takes that for true in a {architecture} file, but its "
            f"versions that wrote no such field did not rescale; write {name}: true or false"
        )
    rescaled = _flag(named, name, default=False)
    if rescaled and known == "never":
        raise ValueError(f"{name} is not supported for architecture {architecture!r}")
    return rescaled


def _flag(named: Mapping[str, Json], name: str, *, default: bool) -> bool:
    value = named.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"expected {name} to be true or false, found {_short(value)}")
    return value


def _positive(value: Json, name: str) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or value <= 0:
        raise ValueError(f"expected {name} to be a positive number, found {_short(value)}")
    return value


def _said(
    config: Mapping[str, Json], metadata: Mapping[str, Json], *, before_6: bool
) -> JsonObject:
    """Return the fields of ``metadata``, which before SAELens 6 stood beside the others."""
    filled = {name: value for name, value in metadata.items() if value is not None}
    plain = {name: value for name, value in config.items() if value is not None}
    return {**filled, **plain} if before_6 else {**config, **filled}


def _short(value: Json) -> str:
    return repr(value)[:SHOWN_CHARACTERS_MAX]
