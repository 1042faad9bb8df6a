"""Architectures of sparse dictionaries, as SAELens stores them: tensors, settings, flags.

What their latents compute stands in ``loopscope.numerics.architectures`` under the same names; a
test compares the two tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Axis = Literal["d_in", "d_sae", "d_out", "d_attn"]
Axes = tuple[Axis, ...]

COMMON: Mapping[str, Axes] = {
    "w_enc": ("d_in", "d_sae"),
    "w_dec": ("d_sae", "d_in"),
    "b_enc": ("d_sae",),
    "b_dec": ("d_in",),
}
"""The tensors of every architecture, with their axes."""
_STORED = {"w_enc": "W_enc", "w_dec": "W_dec", "w_skip": "W_skip"}
WRITTEN: Mapping[str, Axes] = {"w_dec": ("d_sae", "d_out"), "b_dec": ("d_out",)}
"""The tensors of a transcoder that are as wide as the place that it writes."""


@dataclass(frozen=True)
class StoredArchitecture:
    """What the files of one architecture hold.

    ``more`` are the tensors beside ``COMMON``, under the names that numerics has for them.
    ``stored`` is SAELens' name of a tensor where that is another one, ``one_for_all`` the name
    under which a single number stands for a whole tensor. ``activations`` are the values of
    ``activation_fn`` that it admits; with ``chooses_k`` the config holds ``k``. ``rescaled``:
    whether ``rescale_acts_by_decoder_norm`` is unknown, may be written, or must be. A
    ``transcoder`` writes another place than it reads.
    """

    more: Mapping[str, Axes] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict)
    one_for_all: Mapping[str, str] = field(default_factory=dict)
    activations: tuple[str, ...] = ("relu",)
    chooses_k: bool = False
    rescaled: Literal["never", "optional", "required"] = "never"
    transcoder: bool = False

    @property
    def tensors(self) -> dict[str, Axes]:
        """The tensors that make a dictionary, with their axes."""
        return {**COMMON, **(WRITTEN if self.transcoder else {}), **self.more}

    def stored_name(self, tensor: str) -> str:
        """Return SAELens' name of a tensor."""
        return {**_STORED, **self.stored}.get(tensor, tensor)


_BATCH_TOPK = StoredArchitecture(
    {"threshold": ("d_sae",)}, one_for_all={"threshold": "topk_threshold"}, rescaled="required"
)
ARCHITECTURES: Mapping[str, StoredArchitecture] = {
    "standard": StoredArchitecture(),
    "jumprelu": StoredArchitecture({"threshold": ("d_sae",)}),
    "topk": StoredArchitecture(activations=("relu", "topk"), chooses_k=True, rescaled="optional"),
    "batchtopk": _BATCH_TOPK,
    "matryoshka_batchtopk": _BATCH_TOPK,
    "gated": StoredArchitecture(
        {"r_mag": ("d_sae",), "b_mag": ("d_sae",)}, stored={"b_enc": "b_gate"}
    ),
    "temporal": StoredArchitecture(
        {
            "w_query": ("d_attn", "d_sae"),
            "b_query": ("d_attn",),
            "w_key": ("d_attn", "d_sae"),
            "b_key": ("d_attn",),
            "w_value": ("d_sae", "d_sae"),
            "b_value": ("d_sae",),
            "w_mixed": ("d_sae", "d_sae"),
            "b_mixed": ("d_sae",),
        },
        chooses_k=True,
    ),
    "transcoder": StoredArchitecture(transcoder=True),
    "jumprelu_transcoder": StoredArchitecture({"threshold": ("d_sae",)}, transcoder=True),
    "skip_transcoder": StoredArchitecture({"w_skip": ("d_out", "d_in")}, transcoder=True),
    "jumprelu_skip_transcoder": StoredArchitecture(
        {"threshold": ("d_sae",), "w_skip": ("d_out", "d_in")}, transcoder=True
    ),
}
"""By the name that SAELens gives them."""
REFUSED: Mapping[str, str] = {
    "abstopk": "its latents may be negative, and here a latent fires when it is above 0",
    "matching_pursuit": "its latents are chosen one after the other, each after what is left",
    "temporal": "it is read as its authors publish it (conf.yaml, latest_ckpt.safetensors) alone",
    "crosscoder": "it reads several places at once",
    "clt": "it writes several places at once",
}
"""Architectures that a ``cfg.json`` may name and that are not applied, with the reason."""
