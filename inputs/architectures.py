"""Architectures of sparse dictionaries, as SAELens stores them: tensors, settings, flags.

What their latents compute stands in ``loopscope.numerics.architectures`` under the same names; a
test compares the two tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Axis = Literal["d_in", "d_sae"]
Axes = tuple[Axis, ...]

COMMON: Mapping[str, Axes] = {
    "w_enc": ("d_in", "d_sae"),
    "w_dec": ("d_sae", "d_in"),
    "b_enc": ("d_sae",),
    "b_dec": ("d_in",),
}
"""The tensors of every architecture, with their axes."""
_STORED = {"w_enc": "W_enc", "w_dec": "W_dec"}


@dataclass(frozen=True)
class StoredArchitecture:
    """What the files of one architecture hold.

    ``more`` are the tensors beside ``COMMON``, under the names that numerics has for them.
    ``stored`` is SAELens' name of a tensor where that is another one, ``one_for_all`` the name
    under which a single number stands for a whole tensor. ``activations`` are the values of
    ``activation_fn`` that it admits; with ``chooses_k`` the config holds ``k``. ``rescaled``:
    whether ``rescale_acts_by_decoder_norm`` is unknown, may be written, or must be.
    """

    more: Mapping[str, Axes] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict)
    one_for_all: Mapping[str, str] = field(default_factory=dict)
    activations: tuple[str, ...] = ("relu",)
    chooses_k: bool = False
    rescaled: Literal["never", "optional", "required"] = "never"

    @property
    def tensors(self) -> dict[str, Axes]:
        """The tensors that make a dictionary, with their axes."""
        return {**COMMON, **self.more}

    def stored_name(self, tensor: str) -> str:
        """Return SAELens' name of a tensor."""
        return {**_STORED, **self.stored}.get(tensor, tensor)


ARCHITECTURES: Mapping[str, StoredArchitecture] = {
    "standard": StoredArchitecture(),
    "jumprelu": StoredArchitecture({"threshold": ("d_sae",)}),
    "topk": StoredArchitecture(activations=("relu", "topk"), chooses_k=True, rescaled="optional"),
    "batchtopk": StoredArchitecture(
        {"threshold": ("d_sae",)}, one_for_all={"threshold": "topk_threshold"}, rescaled="required"
    ),
}
"""By the name that SAELens gives them."""
