"""Transcoders of Qwen 3 (mwhanna) and one layer of a cross-layer transcoder (mntss).

Read against SAELens 6.54 (``mwhanna_transcoder_huggingface_loader``,
``mntss_clt_layer_huggingface_loader``). As there, the decoders of a layer to all later layers are
summed: its activations are its own, its reconstruction means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from loopscope.inputs.layouts.layout import Contents, Entry, Files, Known, Layout, Reading, Stored
from loopscope.specs.json_values import JsonObject


def _known_qwen(entry: Entry) -> Known:
    found = re.fullmatch(r"layer_(\d+)\.safetensors", entry.path)
    return _at(found[1], "mlp.hook_in") if found else Known("transcoder")


def _at(layer: str, stream: str) -> Known:
    return Known("transcoder", f"blocks.{layer}.{stream}", f"blocks.{layer}.hook_mlp_out")


def _read(configs: Mapping[str, JsonObject], entry: Entry) -> Reading:
    return Reading("transcoder", {"apply_b_dec_to_input": False})


def _read_layer(configs: Mapping[str, JsonObject], entry: Entry) -> Reading:
    config = configs["config.yaml"]
    hooks = {"hook_name": "feature_input_hook", "hook_name_out": "feature_output_hook"}
    said: JsonObject = {
        ours: f"blocks.{entry.path}.{config.get(name)}" for ours, name in hooks.items()
    }
    return Reading("transcoder", {"apply_b_dec_to_input": False}, said)


MWHANNA = Layout(
    "mwhanna-transcoder",
    "mwhanna_transcoder",
    lambda entry: Files("", (), (entry.path,)),
    _known_qwen,
    Contents(
        _read,
        {
            "w_enc": (Stored("W_enc", transposed=True),),
            "w_dec": (Stored("W_dec"),),
            "b_enc": (Stored("b_enc"),),
            "b_dec": (Stored("b_dec"),),
        },
    ),
)
MNTSS = Layout(
    "mntss-clt-layer",
    "mntss_clt_layer_transcoder",
    lambda entry: Files(
        "",
        ("config.yaml",),
        (f"W_enc_{entry.path}.safetensors", f"W_dec_{entry.path}.safetensors"),
    ),
    lambda entry: Known("transcoder"),
    Contents(
        _read_layer,
        {
            "w_enc": (Stored("W_enc", numbered=True, transposed=True),),
            "w_dec": (Stored("W_dec", numbered=True, summed=True),),
            "b_enc": (Stored("b_enc", numbered=True),),
            "b_dec": (Stored("b_dec", numbered=True),),
        },
    ),
)
