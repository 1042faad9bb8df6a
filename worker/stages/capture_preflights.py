"""Preflights of a capture: tokens as they should be, residuals as Hugging Face has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from loopscope.numerics.reading import residual_of
from loopscope.worker.models import AGREEMENT_TOLERANCE, LoadedModel
from loopscope.worker.preflights import Preflight, require


def capture_preflights(
    model: LoadedModel, hook: str, tokens: Sequence[list[int]], rows: Sequence[Tensor]
) -> dict[str, Any]:
    """Check what was captured; return the measured numbers.

    ``rows`` are each prompt's vectors without BOS. The first, last, shortest and longest prompt
    are run again alone, by plain Hugging Face: one number for parity with it and for batched
    equals single. Raises TerminalFailure ``PreflightFailed``.
    """
    begin_tokens = [prompt.count(model.bos_token) for prompt in tokens]
    lengths = [len(prompt) for prompt in tokens]
    chosen = {0, len(tokens) - 1, lengths.index(min(lengths)), lengths.index(max(lengths))}
    parity = max(_difference(model, hook, tokens[i], rows[i]) for i in sorted(chosen))
    return require(
        [
            Preflight(
                "begin-of-sequence tokens per prompt",
                float(max(begin_tokens, key=lambda count: abs(count - 1))),
                1.0,
                1.0,
                "remove the BOS token from the prompts' text",
            ),
            Preflight(
                "residual against plain Hugging Face, one prompt at a time",
                parity,
                0.0,
                AGREEMENT_TOLERANCE[model.dtype],
                "report it with model and hook: the captured vectors cannot be trusted",
            ),
        ]
    )


def _difference(model: LoadedModel, hook: str, tokens: list[int], rows: Tensor) -> float:
    """Return the largest difference, relative to the largest number of the reference."""
    expected = residual_of(model.causal, model.place(hook), tokens, model.device)[1:].cpu()
    if expected.shape != rows.shape:
        return float("nan")
    scale = float(expected.abs().max())
    difference = float((rows - expected).abs().max())
    return difference / scale if scale else difference
