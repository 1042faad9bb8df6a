"""Preflights of a capture: tokens as they should be, residuals as Hugging Face has them.

A residual's largest number is that of one outlier coordinate, and an error that is small beside it
may be larger than all that differs between tokens. So errors are measured in centred norms, and
the rows of Hugging Face are kept: a decomposition asks whether they have the same active latents.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from loopscope.numerics.model.capture import NormStatistics
from loopscope.numerics.model.hooks import HookPlace
from loopscope.numerics.steering.reading import residual_of, streams_of
from loopscope.specs.hooks import WITHIN_BLOCKS
from loopscope.specs.payloads.references import Preflights
from loopscope.worker.encoding import leading_bos
from loopscope.worker.models import LoadedModel
from loopscope.worker.preflights import Preflight, require

DIFFERENCE_MAX = {"float32": 1e-4, "bfloat16": 8e-2, "float16": 1e-2}
"""Largest accepted ‖difference‖ of a row, in median centred norms.

Measured on Gemma 3 270M, padded batches against single prompts: 2e-6 in float32, 4e-2 in bfloat16
(and 97 % of the active latents are the same): about one unit in the last place of its largest
coordinate; a smaller error could not be distinguished from it. Float16 has three bits more."""


def capture_preflights(
    model: LoadedModel,
    hook: str,
    tokens: Sequence[list[int]],
    rows: Sequence[Tensor],
    norms: NormStatistics,
    *,
    in_template: bool = False,
) -> tuple[Preflights, dict[int, Tensor]]:
    """Check what was captured; return the measured numbers, and some prompts' vectors once more.

    ``rows`` are each prompt's vectors without BOS. The first, last, shortest and longest prompt
    are run again alone, by plain Hugging Face: one number for parity with it and for batched
    equals single. Raises TerminalFailure ``PreflightFailed``.
    """
    # a template may begin every turn with the token that is its BOS
    counts = (
        leading_bos(model, one) if in_template else one.count(model.plain_bos) for one in tokens
    )
    begin_tokens = list(counts)
    lengths = [len(prompt) for prompt in tokens]
    chosen = {0, len(tokens) - 1, lengths.index(min(lengths)), lengths.index(max(lengths))}
    place = model.place(hook)
    expected = {
        i: residual_of(model.causal, place, tokens[i], model.device)[1:].cpu()
        for i in sorted(chosen)
    }
    scale = norms.median_centred_norm or norms.median_norm or 1.0
    parity = max(_difference(expected[i], rows[i]) for i in expected) / scale
    checks = require(
        [
            Preflight(
                "begin-of-sequence tokens per prompt",
                float(max(begin_tokens, key=lambda count: abs(count - 1))),
                1.0,
                1.0,
                "remove the BOS token from the prompts' text",
            ),
            Preflight(
                "residual against plain Hugging Face, one prompt at a time, in centred norms",
                parity,
                0.0,
                DIFFERENCE_MAX[model.dtype],
                "report it with model and hook: the captured vectors cannot be trusted",
            ),
        ]
    )
    if place.stream in WITHIN_BLOCKS:
        shortest = tokens[lengths.index(min(lengths))]
        checks |= parts_preflight(model, place.block, shortest)
    return checks, expected


def parts_preflight(model: LoadedModel, block: int, tokens: list[int]) -> Preflights:
    """Check that the block is made of the parts that its places are named after.

    What it returns is the residual stream before it, and what attention and MLP add. In a block
    that scales what it adds, ``hook_attn_out`` and the like would mean something else.
    """
    names = ("resid_pre", "attn_out", "mlp_out", "resid_post")
    places = {stream: HookPlace(block, stream) for stream in names}
    found = streams_of(model.causal, list(places.values()), tokens, model.device)
    before, attention, mlp, after = (found[place].double() for place in places.values())
    error = before + attention + mlp - after
    return require(
        [
            Preflight(
                "residual stream after the block against the sum of its parts, in its norms",
                float(error.norm(dim=1).max() / after.norm(dim=1).median()),
                0.0,
                DIFFERENCE_MAX[model.dtype],
                "choose hook_resid_pre or hook_resid_post: places within this model's blocks are "
                "not what their names say",
            )
        ]
    )


def _difference(expected: Tensor, rows: Tensor) -> float:
    """Return the largest norm of a row's difference; NaN where there are other rows."""
    if expected.shape != rows.shape:
        return float("nan")
    return float((rows - expected).double().norm(dim=1).max())
