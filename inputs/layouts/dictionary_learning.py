"""``dictionary_learning`` folders (Marks, Karvonen, Mueller): a config and a pickled ``ae.pt``.

Read against SAELens 6.54 (``dictionary_learning_sae_huggingface_loader_1``), which takes a trained
BatchTopK for a JumpReLU with one threshold.
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
    section,
    shown,
    whole,
)
from loopscope.specs.json_values import JsonObject
from loopscope.specs.payloads.references import DictionaryReading

CONFIG = "config.json"
_ARCHITECTURE_BY_CLASS = {
    "AutoEncoder": "standard",
    "GatedAutoEncoder": "gated",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "jumprelu",
    "MatryoshkaBatchTopKSAE": "jumprelu",
    "JumpReluAutoEncoder": "jumprelu",
}


def _known(entry: Entry) -> Known:
    layer = re.search(r"(?:^|/)resid_post_layer_(\d+)", entry.path)
    gated = re.search(r"(?:^|_)gated_", entry.path.split("/")[0])
    return Known(
        "gated" if gated else None, f"blocks.{layer[1]}.hook_resid_post" if layer else None
    )


def _read(configs: Mapping[str, JsonObject], entry: Entry) -> Reading:
    trainer = section(configs[CONFIG], "trainer")
    kind = trainer.get("dict_class")
    architecture = _ARCHITECTURE_BY_CLASS.get(str(kind))
    if architecture is None:
        known = ", ".join(_ARCHITECTURE_BY_CLASS)
        raise ValueError(f"dict_class {shown(kind)} is not supported; supported are {known}")
    layer, place = trainer.get("layer"), trainer.get("submodule_name")
    if place is not None and re.search(r"mlp|att", str(place)):
        raise ValueError(f"submodule_name {shown(place)} is not what block {layer!r} puts out")
    if type(layer) is not int:
        raise ValueError(f"expected layer to be a number, found {shown(layer)}")
    numbers: DictionaryReading = {"apply_b_dec_to_input": kind != "JumpReluAutoEncoder"}
    d_sae = whole(trainer.get("dict_size"), "dict_size")
    if architecture == "topk":
        numbers["k"] = whole(trainer.get("k"), "k")
    said: JsonObject = {"hook_name": f"blocks.{layer}.hook_resid_post"}
    model = trainer.get("lm_name")
    if isinstance(model, str):
        said["model_name"] = model
    d_in = whole(trainer.get("activation_dim"), "activation_dim")
    return Reading(architecture, numbers, said, d_in, d_sae)


DICTIONARY_LEARNING = Layout(
    "dictionary-learning",
    "dictionary_learning_1",
    lambda entry: Files(entry.path, (CONFIG,), ("ae.pt",)),
    _known,
    Contents(
        _read,
        {
            "w_enc": (Stored("W_enc"), Stored("encoder.weight", transposed=True)),
            "w_dec": (Stored("W_dec"), Stored("decoder.weight", transposed=True)),
            "b_enc": (Stored("b_enc"), Stored("encoder.bias"), Stored("gate_bias")),
            "b_dec": (Stored("b_dec"), Stored("bias"), Stored("decoder_bias")),
            "threshold": (Stored("threshold"),),
            "r_mag": (Stored("r_mag"),),
            "b_mag": (Stored("mag_bias"),),
        },
        ignored=frozenset({"k", "threshold", "group_sizes"}),
        pickled=True,
    ),
    by_files=True,
)
