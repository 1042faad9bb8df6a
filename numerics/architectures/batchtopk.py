"""BatchTopK (Bussmann et al. 2024), with the threshold that stands for the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from loopscope.numerics.architectures.jumprelu import JumpRelu


@dataclass(frozen=True)
class BatchTopK(JumpRelu):
    """In use a JumpReLU: what a batch would keep is what exceeds the stored threshold."""

    architecture: ClassVar[str] = "batchtopk"
