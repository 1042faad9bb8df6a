"""Llama Scope (He et al. 2024) and Llama Scope R1: JumpReLU dictionaries of rescaled activations.

Read against SAELens 6.54 (``llama_scope_sae_huggingface_loader`` and
``llama_scope_r1_distill_sae_huggingface_loader``). The registry has the factor by which the input
is multiplied. Llama Scope's threshold is one number, in the unit of the input; that of Llama Scope
R1 is stored of each latent, as its logarithm, in the unit of the rescaled input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import sqrt

from loopscope.inputs.layouts.layout import (
    LINEAR,
    Contents,
    Entry,
    Files,
    Known,
    Layout,
    Reading,
    Stored,
    positive,
    section,
    whole,
)
from loopscope.specs.json_values import JsonObject

HYPERPARAMETERS = "hyperparams.json"
_STREAM_BY_LETTER = {"R": "hook_resid_post", "A": "hook_attn_out", "M": "hook_mlp_out"}


def _known(entry: Entry) -> Known:
    found = re.search(r"(?:^|-|/)L(\d+)([RAM])(?:-\d+x)?$", entry.path)
    return Known("jumprelu", f"blocks.{found[1]}.{_STREAM_BY_LETTER[found[2]]}" if found else None)


def _read(configs: Mapping[str, JsonObject], entry: Entry) -> Reading:
    """Return the dictionary of a ``hyperparams.json``; a local one takes the factor from it."""
    config = configs[HYPERPARAMETERS]
    d_in, d_sae = whole(config.get("d_model"), "d_model"), whole(config.get("d_sae"), "d_sae")
    if config.get("act_fn", "jumprelu") != "jumprelu":
        raise ValueError(f"act_fn {str(config['act_fn'])[:60]!r} is not supported")
    norms = section(config, "dataset_average_activation_norm")
    scale = sqrt(d_in) / positive(norms.get("in"), "dataset_average_activation_norm.in")
    threshold = positive(config.get("jump_relu_threshold"), "jump_relu_threshold") * scale
    return Reading(
        "jumprelu",
        {
            "input_scale": entry.norm_scaling_factor or scale,
            "threshold": threshold,
            "apply_b_dec_to_input": False,
        },
        _said(config),
        d_in,
        d_sae,
    )


def _read_r1(configs: Mapping[str, JsonObject], entry: Entry) -> Reading:
    config = configs["config.json"]
    d_in = whole(config.get("d_model"), "d_model")
    d_sae = d_in * whole(config.get("expansion_factor"), "expansion_factor")
    if entry.norm_scaling_factor is None:
        raise ValueError("no norm_scaling_factor is known, by which its input is multiplied")
    return Reading(
        "jumprelu",
        {"input_scale": entry.norm_scaling_factor, "apply_b_dec_to_input": False},
        _said(config),
        d_in,
        d_sae,
    )


def _said(config: JsonObject) -> JsonObject:
    said: JsonObject = {"hook_name": config.get("hook_point_in")}
    if config.get("hook_point_out") not in (None, config.get("hook_point_in")):
        said["hook_name_out"] = config["hook_point_out"]
    if config.get("sparsity_include_decoder_norm") is True:
        said["sparsity_include_decoder_norm"] = True
    return said


LLAMA_SCOPE = Layout(
    "llama-scope",
    "llama_scope",
    lambda entry: Files(entry.path, (HYPERPARAMETERS,), ("checkpoints/final.safetensors",)),
    _known,
    Contents(_read, LINEAR),
    by_files=True,
)
LLAMA_SCOPE_R1 = Layout(
    "llama-scope-r1",
    "llama_scope_r1_distill",
    lambda entry: Files(entry.path, ("config.json",), ("sae_weights.safetensors",)),
    _known,
    Contents(
        _read_r1,
        {**LINEAR, "threshold": (Stored("log_jumprelu_threshold", exponential=True),)},
    ),
    by_files=True,
)
