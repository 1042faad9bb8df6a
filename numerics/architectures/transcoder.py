"""Transcoders (Dunefsky et al. 2024): latents read one place of a model and write another.

SAELens' four: ReLU or JumpReLU, with or without an affine skip connection (Paulo et al. 2025),
which adds ``x @ w_skip.T`` to what is written. What latents read is that of ``standard`` and
``jumprelu``; no bias of the place that is written is taken from the rows that are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import scipy.sparse
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics.architectures.jumprelu import JumpRelu
from loopscope.numerics.architectures.standard import Standard
from loopscope.numerics.dictionaries.sparse import Axis, SparseDictionary

_WRITTEN: Mapping[str, tuple[Axis, ...]] = {"w_dec": ("d_sae", "d_out"), "b_dec": ("d_out",)}
_SKIP: Mapping[str, tuple[Axis, ...]] = {"w_skip": ("d_out", "d_in")}


@dataclass(frozen=True)
class _Transcoder(SparseDictionary):
    """What the four have in common."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` also where a bias of another width would be taken from the rows."""
        super().__post_init__()
        if self.apply_b_dec_to_input:
            raise ValueError("a transcoder takes no decoder bias from the rows that it reads")


@dataclass(frozen=True)
class _Skipping(_Transcoder):
    """With a skip connection."""

    w_skip: Float[Tensor, "d_out d_in"] = field(kw_only=True)

    def reconstruct(
        self, x: Float[Tensor, "rows d_in"], activations: scipy.sparse.csr_array
    ) -> Float[Tensor, "rows d_out"]:
        """Add what is written without any latent."""
        return super().reconstruct(x, activations) + x @ self.w_skip.T


@dataclass(frozen=True)
class Transcoder(_Transcoder, Standard):
    """``relu(x @ w_enc + b_enc)``, written as ``a @ w_dec + b_dec``."""

    architecture: ClassVar[str] = "transcoder"
    required_tensors: ClassVar[Mapping[str, tuple[Axis, ...]]] = {
        **Standard.required_tensors,
        **_WRITTEN,
    }


@dataclass(frozen=True)
class JumpReluTranscoder(_Transcoder, JumpRelu):
    """The same above a threshold of each latent."""

    architecture: ClassVar[str] = "jumprelu_transcoder"
    required_tensors: ClassVar[Mapping[str, tuple[Axis, ...]]] = {
        **JumpRelu.required_tensors,
        **_WRITTEN,
    }


@dataclass(frozen=True)
class SkipTranscoder(_Skipping, Transcoder):
    """``transcoder`` with a skip connection."""

    architecture: ClassVar[str] = "skip_transcoder"
    required_tensors: ClassVar[Mapping[str, tuple[Axis, ...]]] = {
        **Transcoder.required_tensors,
        **_SKIP,
    }


@dataclass(frozen=True)
class JumpReluSkipTranscoder(_Skipping, JumpReluTranscoder):
    """``jumprelu_transcoder`` with a skip connection."""

    architecture: ClassVar[str] = "jumprelu_skip_transcoder"
    required_tensors: ClassVar[Mapping[str, tuple[Axis, ...]]] = {
        **JumpReluTranscoder.required_tensors,
        **_SKIP,
    }
