"""Blocks of a model that are not run: what stands before them is handed on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn


@contextmanager
def parts_of_output(block: nn.Module, parts: list[int]) -> Iterator[None]:
    """Note how ``block`` returns its hidden states in each forward pass inside.

    First in a tuple of so many parts, 0 for the bare tensor.
    """

    def learn(_block: Any, _inputs: Any, output: Any) -> None:
        parts.append(len(output) if isinstance(output, tuple) else 0)

    handle = block.register_forward_hook(learn)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def skipped(blocks: Sequence[nn.Module], output_parts: Sequence[int]) -> Iterator[None]:
    """Let ``blocks`` hand on their hidden states untouched in every forward pass inside.

    The last of ``output_parts``, which may be noted only during the pass, says how they return
    them (``parts_of_output``).
    """

    def hand_on(*inputs: Any, **named: Any) -> Any:
        hidden = inputs[0] if inputs else named["hidden_states"]
        parts = output_parts[-1]
        return (hidden, *[None] * (parts - 1)) if parts else hidden

    with ExitStack() as stack:
        for block in blocks:
            stack.callback(_restore, block, block.__dict__.get("forward"))
            block.__dict__["forward"] = hand_on
        yield


def _restore(block: nn.Module, forward: Any) -> None:
    if forward is None:
        del block.__dict__["forward"]
    else:
        block.__dict__["forward"] = forward
