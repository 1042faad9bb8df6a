"""Gemma Scope and Gemma Scope 2: one file of arrays; what it reads stands in its place.

Read against SAELens 6.54 (``get_gemma_2_config_from_hf``, ``get_gemma_3_config_from_hf``). A Gemma
Scope 2 dictionary of attention reads what goes into the output projection, all heads side by
side, whatever its folder is called. Its transcoders read what the norm before the MLP puts out, as
their configs say; SAELens calls that ``hook_mlp_in``, which is what the norm reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from loopscope.inputs.gemma_scope import check_gemma_scope_config
from loopscope.inputs.layouts.layout import Contents, Entry, Files, Known, Layout, Reading, Stored
from loopscope.specs.json_values import JsonObject

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
    return Known("jumprelu", _at(entry, _STREAM_BY_FOLDER.get(_part(entry))))


def _gemma_3_transcoder(entry: Entry) -> Known:
    architecture = _transcoder(affine=entry.path.endswith("_affine"))
    return Known(architecture, _at(entry, "mlp.hook_in"), _at(entry, "hook_mlp_out"))


def _transcoder(*, affine: bool) -> str:
    return f"jumprelu{'_skip' if affine else ''}_transcoder"


def _part(entry: Entry) -> str:
    return entry.path.split("/")[0].removesuffix("_all")


def _read_gemma_2(configs: Mapping[str, JsonObject], entry: Entry) -> Reading:
    return Reading("jumprelu_transcoder", {"apply_b_dec_to_input": False})


def _read_gemma_3(configs: Mapping[str, JsonObject], entry: Entry) -> Reading:
    """Return the transcoder of a ``config.json``, or without one that of its folder's name."""
    affine = entry.path.endswith("_affine")
    said: JsonObject = {}
    if (config := configs.get("config.json")) is not None:
        check_gemma_scope_config(config)
        affine = config.get("affine_connection", False) is True
        said = {name: config.get(name) for name in ("hf_hook_point_in", "hf_hook_point_out")}
    return Reading(_transcoder(affine=affine), {"apply_b_dec_to_input": False}, said)


def _at(entry: Entry, stream: str | None) -> str | None:
    layer = _LAYER.search(entry.path)
    return f"blocks.{layer[1]}.{stream}" if layer and stream else None


_STREAM_BY_REPOSITORY = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}
_STREAM_BY_FOLDER = {
    "resid_post": "hook_resid_post", "mlp_out": "hook_mlp_out", "attn_out": "attn.hook_z",
}  # fmt: skip

GEMMA_SCOPE = Layout("gemma-scope-npz", "gemma_2", _npz, _gemma_2)
_ARRAYS = {
    "w_enc": (Stored("w_enc"), Stored("W_enc")),
    "w_dec": (Stored("w_dec"), Stored("W_dec")),
    "b_enc": (Stored("b_enc"),),
    "b_dec": (Stored("b_dec"),),
    "threshold": (Stored("threshold"),),
}
GEMMA_SCOPE_TRANSCODER = Layout(
    "gemma-scope-transcoder",
    "gemma_2_transcoder",
    _npz,
    _gemma_2_transcoder,
    Contents(_read_gemma_2, _ARRAYS),
)
GEMMA_SCOPE_2_TRANSCODER = Layout(
    "gemma-scope-2-transcoder",
    "gemma_3",
    _safetensors,
    _gemma_3_transcoder,
    Contents(
        _read_gemma_3,
        {**_ARRAYS, "w_skip": (Stored("affine_skip_connection", transposed=True),)},
        optional=frozenset({"config.json"}),
    ),
    applies=lambda entry: _part(entry) == "transcoder",
)
GEMMA_SCOPE_2 = Layout("gemma-scope-safetensors", "gemma_3", _safetensors, _gemma_3)
