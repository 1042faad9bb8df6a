"""States below the hook, kept from decoding to read the same texts without steering.

An intervention changes nothing below its hook: there a decoded text is what the unsteered model
reads. So that reading begins at the hook, and only the blocks behind it run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.numerics.model.causal_model import CausalModel
from loopscope.numerics.model.hooks import STREAMS, HookPlace, steered
from loopscope.numerics.model.skipping import parts_of_output, skipped


@dataclass
class Recorder:
    """Keeps what each forward pass had at one place, and changes nothing."""

    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Keep what a place has."""
        self.seen.append(hidden)
        return hidden


@dataclass(frozen=True)
class Kept:
    """Decoded rows as the unsteered model has them at some places.

    ``streams`` [rows, width, d] hold the openings, padded on the left to ``opening_width``, and
    behind them the generated tokens; ``mask`` and ``positions`` are those of the same tokens. A
    pass over the blocks behind ``start`` may begin there; ``output_parts`` is how blocks return
    their hidden states.
    """

    start: HookPlace
    streams: dict[HookPlace, Float[Tensor, "rows width d_model"]]
    mask: Bool[Tensor, "rows width"]
    positions: Int[Tensor, "rows width"]
    opening_width: int
    output_parts: int

    def seen_behind(self, place: HookPlace) -> bool:
        """Whether a pass that begins at ``start`` comes by ``place``."""
        return place.block >= self.start.first_block_above


class Keeper:
    """Watches the passes of a decoding, at the hook and at the places below it."""

    def __init__(self, model: CausalModel, hook: HookPlace, places: Sequence[HookPlace]) -> None:
        whole = STREAMS[hook.stream].stands == "after"
        self.start = hook if whole else HookPlace(hook.block, "resid_pre")
        below = [place for place in places if place.block < self.start.first_block_above]
        self._model = model
        self._recorders = {place: Recorder() for place in [self.start, *below]}
        self._parts: list[int] = []

    @property
    def first_block(self) -> int:
        """The first block that is watched."""
        return min(place.block for place in self._recorders)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what passes inside have. To be entered before what steers at the same place."""
        with ExitStack() as stack:
            stack.enter_context(parts_of_output(self._model.blocks[-1], self._parts))
            for place, recorder in self._recorders.items():
                stack.enter_context(steered(self._model, place, recorder))
            yield

    def repeat(self, which: Int[Tensor, " rows"]) -> None:
        """Let rows have what was seen so far of the row that each names."""
        for recorder in self._recorders.values():
            recorder.seen = [
                part if len(part) == len(which) else part[which] for part in recorder.seen
            ]

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Let passes inside end behind what is watched."""
        last = max(place.block for place in self._recorders)
        with skipped(list(self._model.blocks)[last + 1 :], self._parts):
            yield

    def kept(
        self,
        opening_mask: Bool[Tensor, "rows opening"],
        opening_positions: Int[Tensor, "rows opening"],
        lengths: Sequence[int],
    ) -> Kept:
        """Return what was seen, of openings with so many generated tokens behind each."""
        streams = {place: torch.cat(r.seen, dim=1) for place, r in self._recorders.items()}
        opening = opening_mask.shape[1]
        step = torch.arange(streams[self.start].shape[1] - opening, device=opening_mask.device)
        there = step < torch.tensor(lengths, device=opening_mask.device)[:, None]
        behind = opening_positions[:, -1:] + 1 + step
        return Kept(
            self.start,
            streams,
            torch.cat([opening_mask, there], dim=1),
            torch.cat([opening_positions, behind], dim=1),
            opening,
            self._parts[-1],
        )
