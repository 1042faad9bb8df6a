"""EleutherAI's sparsify: TopK dictionaries, one folder a module of the model.

Read against its ``SparseCoder``: the decoder's bias is taken from the input, the k largest are kept
where they exceed 0. SAELens' own loader of it differs in both, and has no registered release.
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
    shown,
    whole,
)
from loopscope.specs.json_values import JsonObject

_BLOCK = re.compile(r"(?:[a-z_]+\.)*(?:layers|h)\.(\d+)")


def _known(entry: Entry) -> Known:
    """Return the hook of a folder such as ``layers.12``: what that module puts out."""
    found = _BLOCK.fullmatch(entry.path.split("/")[-1])
    return Known("topk", f"blocks.{found[1]}.hook_resid_post" if found else None)


def _read(configs: Mapping[str, JsonObject], entry: Entry) -> Reading:
    config = configs["cfg.json"]
    for name in ("transcode", "skip_connection", "signed"):
        if config.get(name) not in (None, False):
            raise ValueError(f"{name} {shown(config[name])} is not supported")
    if config.get("activation", "topk") != "topk":
        raise ValueError(f"activation {shown(config['activation'])} is not supported")
    d_in = whole(config.get("d_in"), "d_in")
    factor = config.get("expansion_factor")
    d_sae = config.get("num_latents") or d_in * whole(factor, "expansion_factor")
    k = whole(config.get("k"), "k")
    hook = _known(entry).hook
    if hook is None:
        raise ValueError(
            f"the folder {entry.path.split('/')[-1][:60]!r} names no block (layers.N): only what a "
            "block puts out is supported"
        )
    return Reading(
        "topk",
        {"k": k, "apply_b_dec_to_input": True},
        {"hook_name": hook},
        d_in,
        whole(d_sae, "num_latents"),
    )


SPARSIFY = Layout(
    "sparsify",
    "sparsify",
    lambda entry: Files(entry.path, ("cfg.json",), ("sae.safetensors",)),
    _known,
    Contents(
        _read,
        {
            "w_enc": (Stored("encoder.weight", transposed=True),),
            "w_dec": (Stored("W_dec"), Stored("decoder.weight", transposed=True)),
            "b_enc": (Stored("encoder.bias"),),
            "b_dec": (Stored("b_dec"),),
        },
    ),
    by_files=True,
)
