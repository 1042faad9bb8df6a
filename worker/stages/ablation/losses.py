"""Target prompts with latents taken out: what is lost of the concept at the next token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

import torch

from loopscope.numerics.drift.next_token import beside
from loopscope.numerics.model.capture import HookNeverFired, NotFinite
from loopscope.numerics.model.hooks import HookPlace
from loopscope.numerics.steering.fixed_text import carried_on, read_text
from loopscope.numerics.steering.intervention import Ablation, Intervention, LatentReader
from loopscope.specs.payloads.steering import SIDES
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.models import LoadedModel
from loopscope.worker.stages.ablation.chosen import Cut

PROMPTS_PER_SHARD = 10
CUTS_PER_PASS = 64
"""Cuts that share a pass over a prompt."""


class Loss(TypedDict):
    """What one prompt loses under one cut, by their numbers."""

    prompt: int
    cut: int
    loss: float
    kl: float
    removed: float
    clean: float


@dataclass(frozen=True)
class Prompts:
    """The prompts of an ablation, tokens with BOS, and what is taken out of them."""

    model: LoadedModel
    place: HookPlace
    tokens: Sequence[Sequence[int]]
    cuts: Sequence[Cut]
    readers: tuple[LatentReader, ...]
    members: torch.Tensor
    concept: list[int]
    context: StageContext

    def losses(self) -> list[Loss]:
        """Return what each prompt loses under each cut, a shard for every ten prompts."""
        found: list[Loss] = []
        for start in range(0, len(self.tokens), PROMPTS_PER_SHARD):
            self.context.progress("Ablating", start, len(self.tokens), "prompts")
            name = f"prompts-{start // PROMPTS_PER_SHARD:04d}.json"
            path = self.context.shards.sealed(name)
            if path is None:
                text = json.dumps(self._losses(start), allow_nan=False)
                path = self.context.shards.seal(name, partial(_write, text))
            found += json.loads(path.read_text(encoding="utf-8"))
        return found

    def _losses(self, start: int) -> list[Loss]:
        numbers = range(start, min(start + PROMPTS_PER_SHARD, len(self.tokens)))
        try:
            return [loss for number in numbers for loss in self._of_prompt(number)]
        except HookNeverFired as error:
            raise TerminalFailure("HookNeverFired", str(error)) from error
        except NotFinite as error:
            raise TerminalFailure("NotFinite", f"{error}; use dtype float32") from error

    @torch.no_grad()
    def _of_prompt(self, number: int) -> list[Loss]:
        """Read a prompt once up to the hook, and carry it on under each cut."""
        tokens, causal = self.tokens[number], self.model.causal
        text = read_text(causal, self.place, tokens, [len(tokens) - 1], self.context.device)
        states, removed = [text.states], [0.0]
        at_once = max(1, CUTS_PER_PASS // self.context.batch_divisor)
        for first in range(0, len(self.cuts), at_once):
            ablation = Ablation(self.members[first : first + at_once], self.readers)
            width = text.residual.shape[2]
            nothing = torch.zeros(len(ablation.member), width, device=self.context.device)
            states.append(carried_on(causal, text, Intervention(nothing, ablation))[:, 0])
            removed += ablation.ablated(text.residual[:, -1:])[:, 0].norm(dim=1).tolist()
        rows = torch.cat(states)
        kl, mass = beside(causal.head, rows, self.concept)
        logs, far = mass.log().tolist(), kl.tolist()
        return [
            {
                "prompt": number,
                "cut": cut,
                "loss": logs[0] - logs[1 + cut],
                "kl": far[1 + cut],
                "removed": removed[1 + cut],
                "clean": logs[0],
            }
            for cut in range(len(self.cuts))
        ]


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def members_of(cuts: Sequence[Cut], latents: dict[str, list[int]], device: str) -> torch.Tensor:
    """Return 1 or 0 for each cut and latent: the coarse ones, then the fine ones."""
    places = [(side, latent) for side in SIDES for latent in latents[side]]
    return torch.tensor(
        [[float(latent in cut.latents[side]) for side, latent in places] for cut in cuts],
        device=device,
    )
