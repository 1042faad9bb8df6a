"""Temporal dictionaries (Lubana et al. 2025), as their authors publish them.

Read against SAELens 6.54 (``temporal_sae_huggingface_loader``, ``TemporalSAE``). One layer of
attention and an encoder that is the decoder's transpose: all that is published. The input is
multiplied by ``scaling_factor``, what the encoder reads of it by 1 / (4 ``d_in``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from loopscope.inputs.layouts.layout import (
    Contents,
    Entry,
    Files,
    Known,
    Layout,
    Reading,
    Stored,
    positive,
    section,
    shown,
    whole,
)
from loopscope.specs.json_values import JsonObject

CONFIG = "conf.yaml"
_ATTENTION = "attn_layers.0"
_LINEAR = {"query": "q_target", "key": "k_ctx", "value": "v_ctx", "mixed": "c_proj"}
"""Our names of what attention computes, and theirs."""
EPSILON = 1e-6
"""Added to the length of what is predicted, in the unit of the scaled input."""


def _known(entry: Entry) -> Known:
    found = re.search(r"layer_(\d+)", entry.path)
    return Known("temporal", f"blocks.{found[1]}.hook_resid_post" if found else None)


def _read(configs: Mapping[str, JsonObject], entry: Entry) -> Reading:
    config = configs[CONFIG]
    sae = section(config, "sae")
    d_in = whole(section(config, "llm").get("dimin"), "llm.dimin")
    d_sae = int(d_in * positive(sae.get("exp_factor"), "sae.exp_factor"))
    for name, value in (("n_attn_layers", 1), ("tied_weights", True)):
        if sae.get(name) != value:
            raise ValueError(f"sae.{name} {shown(sae.get(name))} is not supported, only {value}")
    scale = positive(sae.get("scaling_factor"), "sae.scaling_factor")
    heads = whole(sae.get("n_heads"), "sae.n_heads")
    bottleneck = whole(sae.get("bottleneck_factor"), "sae.bottleneck_factor")
    if d_sae % (bottleneck * heads):
        raise ValueError(
            f"{d_sae} latents cannot be divided by sae.bottleneck_factor {bottleneck} and among "
            f"sae.n_heads {heads}"
        )
    return Reading(
        "temporal",
        {
            "k": _k(sae, d_sae),
            "heads": heads,
            "input_scale": scale,
            "encoder_scale": 1 / (4 * d_in),
            "epsilon": EPSILON / scale,
            "apply_b_dec_to_input": True,
        },
        {},
        d_in,
        d_sae,
        d_attn=d_sae // bottleneck,
    )


def _k(sae: JsonObject, d_sae: int) -> int:
    """Return how many latents are active at most: all of them where none are chosen."""
    match sae.get("sae_diff_type"):
        case "relu":
            return d_sae
        case "topk" if sae.get("kval_topk") is None:
            return d_sae
        case "topk":
            return whole(sae.get("kval_topk"), "sae.kval_topk")
        case other:
            raise ValueError(f"sae.sae_diff_type {shown(other)} is not supported")


TEMPORAL = Layout(
    "temporal",
    "temporal",
    lambda entry: Files(entry.path, (CONFIG,), ("latest_ckpt.safetensors",)),
    _known,
    Contents(
        _read,
        {
            "w_enc": (Stored("D", transposed=True),),
            "w_dec": (Stored("D"),),
            "b_dec": (Stored("b"),),
            **{
                f"w_{ours}": (Stored(f"{_ATTENTION}.{name}.weight"),)
                for ours, name in _LINEAR.items()
            },
            **{
                f"b_{ours}": (Stored(f"{_ATTENTION}.{name}.bias"),)
                for ours, name in _LINEAR.items()
            },
        },
        absent_is_zero=frozenset({"b_enc"}),
    ),
    by_files=True,
)
