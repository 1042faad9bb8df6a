"""Places in a model, by TransformerLens' names: the one grammar of hooks.

A place is a block and a stream. What a stream is in a model's modules stands in
``loopscope.numerics.model.hooks``, under the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Width = Literal["d_model", "d_heads", "d_mlp"]
"""How wide a stream is: as the model, as all attention heads side by side, as the MLP inside."""
STREAMS: Mapping[str, Width] = {
    "resid_pre": "d_model",
    "resid_mid": "d_model",
    "resid_post": "d_model",
    "attn_out": "d_model",
    "attn.z": "d_heads",
    "mlp_in": "d_model",
    "ln2.normalized": "d_model",
    "mlp.in": "d_model",
    "mlp.post": "d_mlp",
    "mlp_out": "d_model",
}
"""The streams that can be captured and steered, with their widths.

A stream has TransformerLens' name without ``hook_``: ``attn.z`` is ``attn.hook_z``. ``attn_out``
and ``mlp_out`` are what is added to the residual stream, so behind a norm that a block puts there
(Gemma 2 and 3). ``attn.z`` holds the heads one after the other. ``mlp_in`` is what the norm before
the MLP reads, ``ln2.normalized`` its result before its weights are applied, ``mlp.in`` the result
that the MLP reads.
"""
WITHIN_BLOCKS = frozenset(STREAMS) - {"resid_pre", "resid_post"}
"""Streams that stand inside of a block: not every model has each of them."""


def _written(stream: str) -> str:
    """Return TransformerLens' name of a stream within a block."""
    module, dot, point = stream.rpartition(".")
    return f"{module}{dot}hook_{point}"


_STREAM_BY_NAME = {_written(stream): stream for stream in STREAMS}
HOOK_PATTERN = rf"^blocks\.(0|[1-9][0-9]{{0,3}})\.({'|'.join(map(re.escape, _STREAM_BY_NAME))})$"
_HOOK = re.compile(HOOK_PATTERN)


@dataclass(frozen=True)
class Hook:
    """A place in a model: which block, and which stream there."""

    block: int
    stream: str

    @staticmethod
    def parse(name: str) -> Hook:
        """Read a name such as ``blocks.12.hook_resid_post``. Raises ValueError."""
        found = _HOOK.fullmatch(name)
        if found is None:
            raise ValueError(f"{name!r} is not {all_hooks()}")
        return Hook(int(found[1]), _STREAM_BY_NAME[found[2]])

    def __str__(self) -> str:
        return f"blocks.{self.block}.{_written(self.stream)}"

    @property
    def width(self) -> Width:
        """How wide the stream is."""
        return STREAMS[self.stream]

    def missing_from(self, name: str, n_layers: int | None, *, parallel: bool) -> str | None:
        """Return why a model has no such place, None if it may have it.

        ``n_layers`` is None where it is not known; blocks are ``parallel`` whose MLP reads what
        attention reads.
        """
        if n_layers is not None and self.block >= n_layers:
            return (
                f"{name} has {n_layers} layers, so there is no {self}; "
                f"use blocks.0 to blocks.{n_layers - 1}"
            )
        if parallel and self.stream == "resid_mid":
            return (
                f"attention and MLP of {name} read the same stream, so nothing stands between them "
                f"and there is no {self}; use hook_resid_pre, hook_mlp_in or hook_resid_post"
            )
        return None

    def nearby(self, n_layers: int) -> list[Hook]:
        """Return the hooks for which this one is easily taken, of the same width.

        The other streams of its block, and its own in the blocks before and after; what stands at
        two names (after a block, before the next) is listed once.
        """
        beside = [Hook(self.block, one) for one in STREAMS if STREAMS[one] == self.width]
        beside += [Hook(block, self.stream) for block in (self.block - 1, self.block + 1)]
        distinct: dict[Hook, Hook] = {}
        for hook in beside:
            if 0 <= hook.block < n_layers:
                distinct.setdefault(hook._after_a_block(), hook)
        return [hook for place, hook in distinct.items() if place != self._after_a_block()]

    def _after_a_block(self) -> Hook:
        """Return the same place by its other name, if what enters a block left another."""
        enters = self.stream == "resid_pre" and self.block > 0
        return Hook(self.block - 1, "resid_post") if enters else self

    def within(self, n_layers: int) -> Hook:
        """Return the hook itself. Raises ValueError for a block that the model does not have."""
        if self.block >= n_layers:
            raise ValueError(f"{str(self)!r} names block {self.block}, the model has {n_layers}")
        return self


def all_hooks() -> str:
    """Return the names that are known, in words, with N for the block."""
    return f"blocks.N. and one of {', '.join(_STREAM_BY_NAME)}"


def all_streams() -> str:
    """Return the streams that are known, in words."""
    *others, last = _STREAM_BY_NAME
    return f"{', '.join(others)} and {last}"
