"""Texts that two computations drew alike, but for a draw that the last bit decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from loopscope.numerics.model.hooks import HookPlace, steered
from loopscope.numerics.statistics.sampling import SamplingRule
from tests.acceptance.independent_steering import choose


@torch.no_grad()
def next_logits(
    model, tokens: Sequence[int], place: HookPlace, change: Callable[[Tensor], Tensor]
) -> np.ndarray:
    """Return the logits after ``tokens``, float64 [vocabulary], of one pass without a cache.

    ``change`` turns the stream [1, tokens, width] at ``place`` into the steered one.
    """

    def after(_module, _inputs, output):
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    def before(_module, inputs):
        return (change(inputs[0]), *inputs[1:])

    block = model.causal.blocks[place.block]
    with ExitStack() as stack:
        if place.stream == "resid_post":
            stack.callback(block.register_forward_hook(after).remove)
        elif place.stream == "resid_pre":
            stack.callback(block.register_forward_pre_hook(before).remove)
        else:  # compared with modules by hand in test_places
            stack.enter_context(steered(model.causal, place, change))
        logits = model.hf_model(input_ids=torch.tensor([list(tokens)])).logits[0, -1]
    return logits.double().numpy()


def adding(vector: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the change that adds ``vector`` [d_model] at every token but BOS."""

    def add(hidden: Tensor) -> Tensor:
        delta = vector.expand_as(hidden).clone()
        delta[:, 0] = 0
        return hidden + delta

    return add


def assert_drawn_alike(
    found: Sequence[Sequence[int]],
    expected: Sequence[Sequence[int]],
    logits: Callable[[int, list[int]], np.ndarray],
    draws: Sequence[Sequence[float]] | Tensor,
    rule: SamplingRule,
) -> None:
    """Assert that each row holds the same tokens, up to its first draw within rounding.

    ``logits(row, tokens)`` are those after ``tokens`` of a row in a pass of its own, and
    ``draws`` [rows, steps] its uniforms; a greedy rule has none. What follows a draw that went
    the other way has another context, and is not compared.
    """
    assert len(found) == len(expected)
    for row, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        pairs = enumerate(zip(ours, theirs, strict=False))
        step = next((i for i, (a, b) in pairs if a != b), None)
        if step is None:
            assert len(ours) == len(theirs), f"row {row} ends after {len(ours)}, {len(theirs)}"
            continue
        here = logits(row, list(ours[:step]))
        kept = 1 if rule.greedy else rule.top_k or len(here)
        uniform = 0.0 if rule.greedy else float(draws[row][step])
        answer = choose(here, uniform, {"topK": kept, "temperature": rule.temperature})
        assert {ours[step], theirs[step]} <= answer.possibly, (
            f"row {row}, token {step}: {ours[step]} and {theirs[step]}, only {answer.possibly} "
            "can be drawn"
        )
