"""Forward passes of a capture: for its own hook, and for others as long as they go well."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from loopscope.numerics.model.batching import TokenBatch, pad
from loopscope.numerics.model.capture import (
    HookNeverFired,
    NotFinite,
    check_residual,
    residuals_at_hooks,
    rows_without_bos,
)
from loopscope.state.failures import TerminalFailure
from loopscope.worker.companions import Companion
from loopscope.worker.models import LoadedModel
from loopscope.worker.shards import Shards

Rows = dict[str, Tensor]
"""``{prompt index: [tokens, d_model]}``, on the CPU."""


@dataclass
class ForwardPasses:
    """Runs batches of prompts; what the model shows at several hooks comes from one pass.

    The companions are a gift: whatever goes wrong for one of them is left to its own job.
    """

    model: LoadedModel
    hook: str
    tokens: Sequence[list[int]]
    ids: Sequence[str]
    companions: Sequence[Companion] = ()
    _others: list[str] = field(default_factory=list)
    _found: dict[str, Rows] = field(default_factory=dict)

    def __post_init__(self) -> None:
        others = {one.hook for one in self.companions} - {self.hook}
        self._others = sorted(hook for hook in others if self._has(hook))

    def begin_shard(self) -> None:
        """Forget the vectors of the shard before."""
        self._found = {hook: {} for hook in (self.hook, *self._others)}

    def run(self, batch: Sequence[int]) -> int:
        """Add the vectors of these prompts; return how many prompts the shard holds.

        Raises TerminalFailure ``HookNeverFired`` or ``NotFinite``.
        """
        padded = pad([self.tokens[i] for i in batch], self.model.pad_token, "right", self.device)
        try:
            residuals = self._residuals(padded)
            own = check_residual(
                residuals[self.hook], padded, self.model.width(self.hook), self.hook
            )
        except HookNeverFired as error:
            raise TerminalFailure("HookNeverFired", str(error)) from error
        except NotFinite as error:
            where = "" if error.row is None else f", first in prompt {self.ids[batch[error.row]]}"
            raise TerminalFailure("NotFinite", f"{error}{where}; use dtype float32") from error
        self._keep(self.hook, own, padded, batch)
        for hook in list(self._others):
            try:
                other = check_residual(residuals[hook], padded, self.model.width(hook), hook)
            except NotFinite:
                self._others.remove(hook)
            else:
                self._keep(hook, other, padded, batch)
        return len(self._found[self.hook])

    def seal(self, shards: Shards, name: str) -> Path:
        """Seal the shard, then the companions' shards of the same prompts; return the own one."""
        path = shards.seal(name, partial(_save, self._found[self.hook]))
        for companion in self.companions:
            if companion.hook == self.hook or companion.hook in self._others:
                # published meanwhile, its folder is removed under our hands
                with contextlib.suppress(FileNotFoundError):
                    companion.shards.seal(name, partial(_save, self._found[companion.hook]))
        return path

    @property
    def device(self) -> str:
        """Where the model is."""
        return self.model.device

    def _has(self, hook: str) -> bool:
        try:
            self.model.place(hook)
        except TerminalFailure:
            return False
        return True

    def _residuals(self, padded: TokenBatch) -> dict[str, Tensor]:
        if self._others:
            with contextlib.suppress(HookNeverFired):
                return residuals_at_hooks(self.model.bridge, [self.hook, *self._others], padded)
            self._others = []
        return residuals_at_hooks(self.model.bridge, [self.hook], padded)

    def _keep(self, hook: str, residual: Tensor, padded: TokenBatch, batch: Sequence[int]) -> None:
        rows = rows_without_bos(residual, padded)
        for index, row in zip(batch, rows, strict=True):
            self._found[hook][f"{index:08d}"] = row.cpu().contiguous()


def _save(found: Rows, path: Path) -> None:
    save_file({key: found[key] for key in sorted(found)}, path)
