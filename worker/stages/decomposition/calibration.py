"""Preflights of a decomposition: what its dictionary does on ordinary text and on wrong rows."""

from __future__ import annotations

import math

from torch import Tensor

from loopscope.numerics.dictionaries.sparse import (
    BLOCK_BYTES_MAX,
    ReconstructionSums,
    SparseDictionary,
    block_shape,
    encode,
)
from loopscope.specs.payloads.decomposition import DecompositionPayload
from loopscope.specs.payloads.references import Preflights
from loopscope.worker.context import StageContext
from loopscope.worker.preflights import Preflight, require

ADVICE = "check that the dictionary was trained on this model and hook, in the same scale"
ALIKE = "all of them are alike, so there is nothing to explain; give more calibration text"
SAME_LATENTS_MIN = 0.9
"""Least share of the latents active in one of two computations that are active in both."""


def calibration_preflight(
    payload: DecompositionPayload, on_text: ReconstructionSums, nearby: str | None = None
) -> Preflights:
    """Check L0 and FVU on all tokens of the calibration text, where ranges are given.

    Last tokens of prompts do not characterise a dictionary: it was not trained on them. ``nearby``
    says at which hook it would do, where that was tried.
    Raises TerminalFailure ``PreflightFailed`` outside of a range.
    """
    if "calibration" not in payload:
        return {}
    ranges = payload["calibration"]
    return require(
        [
            Preflight(
                f"{name} on {on_text.rows:,} tokens of calibration text",
                measured,
                low,
                high,
                ALIKE if math.isnan(measured) else nearby or ADVICE,
            )
            for name, measured, (low, high) in (
                ("L0", on_text.l0, ranges["l0"]),
                ("FVU", on_text.fvu, ranges["fvu"]),
            )
        ]
    )


def latents_preflight(
    dictionary: SparseDictionary, captured: Tensor, expected: Tensor, context: StageContext
) -> Preflights:
    """Check that rows as captured and as plain Hugging Face has them have the same active latents.

    Both are [rows, d_in], a few prompts' rows. An error that is small beside the residual may be
    large for a dictionary. Raises TerminalFailure ``PreflightFailed``.
    """
    shape = block_shape(len(captured), dictionary.d_sae, BLOCK_BYTES_MAX // context.batch_divisor)
    first, second = (
        encode(dictionary, rows.to(context.device), *shape) > 0 for rows in (captured, expected)
    )
    either, both = (first + second).nnz, first.multiply(second).nnz
    return require(
        [
            Preflight(
                f"share of {either:,} active latents that plain Hugging Face finds as well",
                both / either if either else 1.0,
                SAME_LATENTS_MIN,
                1.0,
                "capture in dtype float32, or report it with model, hook and device",
            )
        ]
    )
