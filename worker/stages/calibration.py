"""Preflight of a decomposition: the dictionary does on ordinary text what it was measured to do."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file

from loopscope.numerics.dictionary import (
    BLOCK_BYTES_MAX,
    ReconstructionSums,
    SparseDictionary,
    block_shape,
    decode,
    encode,
)
from loopscope.worker.context import StageContext
from loopscope.worker.preflights import Preflight, require
from loopscope.worker.stages.capture import CALIBRATION

ROWS_AT_ONCE = 512
ADVICE = "check that the dictionary was trained on this model and hook, in the same scale"


def calibration_preflight(
    payload: dict[str, Any], context: StageContext, dictionary: SparseDictionary
) -> dict[str, Any]:
    """Measure L0 and FVU on all tokens of the calibration text, where ranges are given.

    Last tokens of prompts say nothing about a dictionary: they are not what it was trained on.
    Raises TerminalFailure ``PreflightFailed`` outside of a range.
    """
    expected = payload.get("calibration")
    if expected is None:
        return {}
    capture = context.artifact("capture", payload["capture"]["digest"])
    rows = load_file(capture / CALIBRATION)["residual"]
    sums = ReconstructionSums.empty(dictionary.d_in, dictionary.d_sae)
    for part in torch.split(rows, ROWS_AT_ONCE):
        context.progress("Calibrating", sums.rows, len(rows), "rows")
        x = part.to(context.device)
        shape = block_shape(len(x), dictionary.d_sae, BLOCK_BYTES_MAX // context.batch_divisor)
        activations = encode(dictionary, x, *shape)
        sums = sums.merge(ReconstructionSums.of(x, decode(dictionary, activations), activations))
    measured = {"l0": sums.l0, "fvu": sums.fvu}
    return require(
        [
            Preflight(
                f"{name.upper()} on {sums.rows:,} tokens of calibration text",
                measured[name],
                low,
                high,
                ADVICE,
            )
            for name, (low, high) in sorted(expected.items(), reverse=True)
        ]
    )
