"""Gemma Scope and Gemma Scope 2: one file of five arrays; what it reads stands in its place.

Read against SAELens 6.54 (``get_gemma_2_config_from_hf``, ``get_gemma_3_config_from_hf``). A Gemma
Scope 2 dictionary of attention reads what goes into the output projection, all heads side by
side, whatever its folder is called.
"""

from __future__ import annotations

import re

from loopscope.inputs.layouts.layout import Entry, Files, Known, Layout

_LAYER = re.compile(r"(?:^|/)layer_(\d+)")


def _npz(entry: Entry) -> Files:
    return Files(entry.path, (), ("params.npz",))


def _safetensors(entry: Entry) -> Files:
    return Files(entry.path, ("config.json",), ("params.safetensors",))


def _gemma_2(entry: Entry) -> Known:
    if "embedding" in entry.path.split("/"):
        return Known("jumprelu", "hook_embed")
    kind = next((kind for kind in _STREAM_BY_REPOSITORY if f"-{kind}" in entry.repo), "")
    return Known("jumprelu", _at(entry, _STREAM_BY_REPOSITORY.get(kind)))


def _gemma_2_transcoder(entry: Entry) -> Known:
    return Known(
        "jumprelu_transcoder", _at(entry, "ln2.hook_normalized"), _at(entry, "hook_mlp_out")
    )


def _gemma_3(entry: Entry) -> Known:
    part = entry.path.split("/")[0].removesuffix("_all")
    if part == "transcoder":
        skip = "_skip" if entry.path.endswith("_affine") else ""
        architecture = f"jumprelu{skip}_transcoder"
        return Known(architecture, _at(entry, "hook_mlp_in"), _at(entry, "hook_mlp_out"))
    return Known("jumprelu", _at(entry, _STREAM_BY_FOLDER.get(part)))


def _at(entry: Entry, stream: str | None) -> str | None:
    layer = _LAYER.search(entry.path)
    return f"blocks.{layer[1]}.{stream}" if layer and stream else None


_STREAM_BY_REPOSITORY = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}
_STREAM_BY_FOLDER = {
    "resid_post": "hook_resid_post", "mlp_out": "hook_mlp_out", "attn_out": "attn.hook_z",
}  # fmt: skip

GEMMA_SCOPE = Layout("gemma-scope-npz", "gemma_2", _npz, _gemma_2)
GEMMA_SCOPE_TRANSCODER = Layout("gemma-scope-npz", "gemma_2_transcoder", _npz, _gemma_2_transcoder)
GEMMA_SCOPE_2 = Layout("gemma-scope-safetensors", "gemma_3", _safetensors, _gemma_3)
