"""Releases of one pickled file a dictionary: Qwen Scope, Goodfire, DeepSeek R1, GPT-2's attention.

Read against SAELens 6.54 (the loaders of the same names). What a config would say, widths above
all, stands in the name of the repository or is written down here, as it is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from loopscope.inputs.layouts.layout import (
    LINEAR,
    Contents,
    Entry,
    Files,
    Known,
    Layout,
    Reading,
    Stored,
    whole,
)
from loopscope.specs.json_values import JsonObject

SAME_NAMES = {"b_enc": (Stored("b_enc"),), "b_dec": (Stored("b_dec"),)}

QWEN_WIDTHS = {
    "Qwen3-1.7B-Base": 2048,
    "Qwen3-8B-Base": 4096,
    "Qwen3-30B-A3B-Base": 2048,
    "Qwen3.5-2B-Base": 2048,
    "Qwen3.5-9B-Base": 4096,
    "Qwen3.5-27B": 5120,
    "Qwen3.5-35B-A3B-Base": 2048,
}
"""Model -> width of its residual stream."""
WIDTHS = {
    "Goodfire/Llama-3.3-70B-Instruct-SAE-l50": (8192, 65536),
    "Goodfire/Llama-3.1-8B-Instruct-SAE-l19": (4096, 65536),
    "qresearch/DeepSeek-R1-Distill-Llama-8B-SAE-l19": (4096, 65536),
}
"""Repository -> ``d_in`` and ``d_sae`` of its one dictionary."""


def _file(entry: Entry) -> Files:
    return Files("", (), (entry.path,))


def _residual(pattern: str, architecture: str, entry: Entry) -> Known:
    layer = re.search(pattern, entry.path)
    return Known(architecture, f"blocks.{layer[1]}.hook_resid_post" if layer else None)


def _read_qwen(configs: Mapping[str, JsonObject], entry: Entry) -> Reading:
    found = re.search(r"SAE-Res-(.+)-W(\d+)K-L0_(\d+)$", entry.repo)
    if found is None or found[1] not in QWEN_WIDTHS:
        raise ValueError(f"{entry.repo} does not say its model, width and number of active latents")
    d_in, d_sae = QWEN_WIDTHS[found[1]], int(found[2]) * 1024
    return Reading("topk", {"k": int(found[3]), "apply_b_dec_to_input": False}, {}, d_in, d_sae)


def _read_known(configs: Mapping[str, JsonObject], entry: Entry) -> Reading:
    if entry.repo not in WIDTHS:
        raise ValueError(f"the widths of {entry.repo} are not known")
    return Reading("standard", {"apply_b_dec_to_input": False}, {}, *WIDTHS[entry.repo])


def _attention_config(entry: Entry) -> str:
    return f"{entry.path.split('.pt')[0]}_cfg.json"


def _known_attention(entry: Entry) -> Known:
    layer = re.search(r"_L(\d+)_Hcat_z_", entry.path)
    return Known("standard", f"blocks.{layer[1]}.attn.hook_z" if layer else None)


def _read_attention(configs: Mapping[str, JsonObject], entry: Entry) -> Reading:
    config = configs[_attention_config(entry)]
    return Reading(
        "standard",
        {"apply_b_dec_to_input": True},
        {"hook_name": config.get("act_name")},
        whole(config.get("act_size"), "act_size"),
        whole(config.get("dict_size"), "dict_size"),
    )


QWEN_SCOPE = Layout(
    "qwen-scope",
    "qwen_scope",
    _file,
    lambda entry: _residual(r"^layer(\d+)\.sae\.pt$", "topk", entry),
    Contents(
        _read_qwen,
        {
            "w_enc": (Stored("W_enc", transposed=True),),
            "w_dec": (Stored("W_dec", transposed=True),),
            **SAME_NAMES,
        },
        pickled=True,
    ),
)
GOODFIRE_FILE = Layout(
    "goodfire",
    "goodfire",
    _file,
    lambda entry: _residual(r"-l(\d+)\.pth?$", "standard", entry),
    Contents(
        _read_known,
        {
            "w_enc": (Stored("encoder_linear.weight", transposed=True),),
            "w_dec": (Stored("decoder_linear.weight", transposed=True),),
            "b_enc": (Stored("encoder_linear.bias"),),
            "b_dec": (Stored("decoder_linear.bias"),),
        },
        pickled=True,
    ),
)
DEEPSEEK_R1 = Layout(
    "deepseek-r1",
    "deepseek_r1",
    _file,
    lambda entry: _residual(r"l(\d+)", "standard", entry),
    Contents(_read_known, LINEAR, pickled=True),
)
GPT2_ATTENTION = Layout(
    "gpt2-attention",
    "connor_rob_hook_z",
    lambda entry: Files("", (_attention_config(entry),), (entry.path,)),
    _known_attention,
    Contents(
        _read_attention,
        {"w_enc": (Stored("W_enc"),), "w_dec": (Stored("W_dec"),), **SAME_NAMES},
        pickled=True,
    ),
)
