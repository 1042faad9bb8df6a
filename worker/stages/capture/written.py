"""Vectors where a dictionary writes: at the hook itself, or at a transcoder's write hook."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from safetensors.torch import load_file
from torch import Tensor

from loopscope.specs.artifacts.capture import WRITTEN


def written_rows(capture: Path, rows: Literal["residual", "calibration"], read: Tensor) -> Tensor:
    """Return a capture's rows of prompts or of calibration text where dictionaries write.

    These are the rows ``read`` at the hook, but for transcoders.
    """
    path = capture / WRITTEN.name
    return load_file(path)[rows] if path.exists() else read
