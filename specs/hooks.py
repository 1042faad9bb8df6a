"""Places in a model, by TransformerLens' names: the one grammar of hooks.

A place is a block and a stream. What a stream is in a model's modules stands in
``loopscope.numerics.model.hooks``, under the same names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

STREAMS = ("resid_pre", "resid_post")
"""The streams that can be captured and steered: the residual stream before and after a block."""
HOOK_PATTERN = rf"^blocks\.(0|[1-9][0-9]{{0,3}})\.hook_({'|'.join(STREAMS)})$"
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
        return Hook(int(found[1]), found[2])

    def __str__(self) -> str:
        return f"blocks.{self.block}.hook_{self.stream}"

    def within(self, n_layers: int) -> Hook:
        """Return the hook itself. Raises ValueError for a block that the model does not have."""
        if self.block >= n_layers:
            raise ValueError(f"{str(self)!r} names block {self.block}, the model has {n_layers}")
        return self


def all_hooks() -> str:
    """Return the names that are known, in words, with N for the block."""
    return " or ".join(f"blocks.N.hook_{stream}" for stream in STREAMS)


def all_streams() -> str:
    """Return the streams that are known, in words."""
    return " and ".join(f"hook_{stream}" for stream in STREAMS)
