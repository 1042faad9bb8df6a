"""Streams in a model's modules: where each is read or changed, one line a stream.

The names are TransformerLens' without ``hook_``, as in ``loopscope.specs.hooks``; so are those of
the parts of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from loopscope.numerics.model.causal_model import BlockParts, CausalModel
from loopscope.numerics.model.normalisation import normalisation_of

Change = Callable[[Tensor], Tensor]
Attach = Callable[[nn.Module, BlockParts, Change], list[RemovableHandle]]
"""Lets a stream of a block be changed until the handles are removed."""


class NoSuchPlace(Exception):
    """A model's blocks have no such stream."""


@dataclass(frozen=True)
class Stream:
    """How a stream is changed, where in a block it stands, and how wide it is.

    ``input_of`` names the part whose input it is, where it is not as wide as the model.
    """

    attach: Attach
    stands: Literal["before", "within", "after"]
    input_of: str | None = None


@dataclass(frozen=True)
class HookPlace:
    """Where a model is read or changed: a stream of a block."""

    block: int
    stream: str

    @property
    def first_block_above(self) -> int:
        """The first block of which something lies above the hook."""
        return self.block + 1 if STREAMS[self.stream].stands == "after" else self.block

    @property
    def within_block(self) -> bool:
        """Whether a part of the block lies below the hook and another above."""
        return STREAMS[self.stream].stands == "within"


def _part(block: nn.Module, parts: BlockParts, name: str) -> nn.Module:
    try:
        return block.get_submodule(parts.paths[name])
    except (KeyError, AttributeError):
        raise NoSuchPlace(f"the model's blocks have no part {name} that is known here") from None


def _block_input(block: nn.Module, _parts: BlockParts, change: Change) -> list[RemovableHandle]:
    return [block.register_forward_pre_hook(_before(change), with_kwargs=True)]


def _block_output(block: nn.Module, _parts: BlockParts, change: Change) -> list[RemovableHandle]:
    return [block.register_forward_hook(lambda _module, _inputs, out: _first(out, change))]


def _input_of(name: str) -> Attach:
    def attach(block: nn.Module, parts: BlockParts, change: Change) -> list[RemovableHandle]:
        return _block_input(_part(block, parts, name), parts, change)

    return attach


def _added_by(name: str, norm: str) -> Attach:
    """What a part adds to the residual stream: behind its norm, where it has one (Gemma)."""

    def attach(block: nn.Module, parts: BlockParts, change: Change) -> list[RemovableHandle]:
        last = norm if norm in parts.paths else name
        return _block_output(_part(block, parts, last), parts, change)

    return attach


def _between(block: nn.Module, parts: BlockParts, change: Change) -> list[RemovableHandle]:
    """The residual stream between attention and MLP: the MLP reads it, and the block adds to it.

    A block's code holds it in a variable that no module sees, so that what the MLP reads is
    changed before it, and what the block returns behind it, by the same difference.
    """
    if parts.parallel:
        raise NoSuchPlace(
            "attention and MLP of the model's blocks read the same stream, so that nothing stands "
            "between them"
        )
    moved: list[Tensor] = []

    def read(hidden: Tensor) -> Tensor:
        changed = change(hidden)
        if changed is not hidden:
            moved.append(changed - hidden)
        return changed

    def add(output: Tensor) -> Tensor:
        return output + moved.pop() if moved else output

    norm = _part(block, parts, "ln2")
    return [*_block_input(norm, parts, read), *_block_output(block, parts, add)]


def _normalised(block: nn.Module, parts: BlockParts, change: Change) -> list[RemovableHandle]:
    """What the norm before the MLP computes before it applies its weights."""
    norm = _part(block, parts, "ln2")
    formula = normalisation_of(norm)
    if formula is None:
        raise NoSuchPlace("the norm before the model's MLP is neither a LayerNorm nor an RMSNorm")

    def after(_module: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        rows = formula.normalised(inputs[0])
        changed = change(rows)
        return output if changed is rows else output + ((changed - rows) * formula.gain).to(output)

    return [norm.register_forward_hook(after)]


STREAMS: Mapping[str, Stream] = {
    "resid_pre": Stream(_block_input, "before"),
    "resid_mid": Stream(_between, "within"),
    "resid_post": Stream(_block_output, "after"),
    "attn_out": Stream(_added_by("attn", "ln1_post"), "within"),
    "attn.z": Stream(_input_of("attn.o"), "within", "attn.o"),
    "mlp_in": Stream(_input_of("ln2"), "within"),
    "ln2.normalized": Stream(_normalised, "within"),
    "mlp.in": Stream(_input_of("mlp"), "within"),
    "mlp.post": Stream(_input_of("mlp.out"), "within", "mlp.out"),
    "mlp_out": Stream(_added_by("mlp", "ln2_post"), "within"),
}


@contextmanager
def steered(model: CausalModel, place: HookPlace, change: Change) -> Iterator[None]:
    """Apply ``change`` to a stream in every forward pass inside. Raises NoSuchPlace."""
    block = model.blocks[place.block]
    with ExitStack() as stack:
        for handle in STREAMS[place.stream].attach(block, model.parts, change):
            stack.callback(handle.remove)
        yield


def width_at(model: CausalModel, place: HookPlace) -> int:
    """Return how wide the vectors of a place are. Raises NoSuchPlace where the model lacks it."""
    with steered(model, place, lambda hidden: hidden):
        part = STREAMS[place.stream].input_of
    if part is None:
        return int(model.head.weight.shape[1])
    module: Any = _part(model.blocks[place.block], model.parts, part)
    inputs = getattr(module, "in_features", None)
    # GPT-2's Conv1D has no such number, and keeps its weight as [inputs, outputs]
    return int(module.weight.shape[0] if inputs is None else inputs)


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
