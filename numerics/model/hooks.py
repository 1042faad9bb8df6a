"""Streams in a model's modules: where each is read or changed, one line a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from loopscope.numerics.model.causal_model import CausalModel

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Stream:
    """``module`` finds a stream's module in a block; the stream is its input or its output."""

    module: Callable[[nn.Module], nn.Module]
    is_input: bool


STREAMS: Mapping[str, Stream] = {
    "resid_pre": Stream(lambda block: block, is_input=True),
    "resid_post": Stream(lambda block: block, is_input=False),
}


@dataclass(frozen=True)
class HookPlace:
    """Where a model is read or changed: a stream of a block."""

    block: int
    stream: str

    @property
    def first_block_above(self) -> int:
        """The first block that lies wholly above the hook."""
        return self.block if STREAMS[self.stream].is_input else self.block + 1


@contextmanager
def steered(model: CausalModel, place: HookPlace, change: Change) -> Iterator[None]:
    """Apply ``change`` to a stream in every forward pass inside."""
    stream = STREAMS[place.stream]
    module = stream.module(model.blocks[place.block])
    if stream.is_input:
        handle = module.register_forward_pre_hook(_before(change), with_kwargs=True)
    else:
        handle = module.register_forward_hook(lambda _module, _inputs, out: _first(out, change))
    try:
        yield
    finally:
        handle.remove()


def _before(change: Change) -> Callable[..., Any]:
    def before(_module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if inputs:
            return (change(inputs[0]), *inputs[1:]), named
        return inputs, {**named, "hidden_states": change(named["hidden_states"])}

    return before


def _first(output: Any, change: Change) -> Any:
    """Change the hidden states that a module returns, alone or first in a tuple."""
    if isinstance(output, tuple):
        return (change(output[0]), *output[1:])
    return change(output)
