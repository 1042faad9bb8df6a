"""BatchTopK (Bussmann et al. 2024), with the threshold that stands for the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from loopscope.numerics.architectures.jumprelu import JumpRelu


@dataclass(frozen=True)
class BatchTopK(JumpRelu):
    """In use a JumpReLU: what a batch would keep is what exceeds the stored threshold."""

    architecture: ClassVar[str] = "batchtopk"


@dataclass(frozen=True)
class MatryoshkaBatchTopK(BatchTopK):
    """Bussmann et al. 2025: in use the same; its first latents are a coarser dictionary."""

    architecture: ClassVar[str] = "matryoshka_batchtopk"
