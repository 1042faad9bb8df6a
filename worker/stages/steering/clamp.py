"""Clamped steering: which latents each arm ablates before its vector is added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loopscope.numerics.steering.intervention import Ablation, LatentReader
from loopscope.specs.payloads.steering import SIDES, SteeringPayload
from loopscope.worker.context import StageContext
from loopscope.worker.stages.steering.arms import Arms


@dataclass(frozen=True)
class ClampedLatents:
    """The latents of all arms, and which of them belong to each arm.

    ``members`` maps an arm to 1 or 0 for each latent of all readers. An arm that is made of no
    latents (a mean difference, a random direction), ``none`` and arms of words have no entry:
    they ablate nothing.
    """

    readers: tuple[LatentReader, ...]
    members: dict[str, Tensor]

    def of(self, arms: Sequence[str]) -> Ablation:
        """Return what each of ``arms`` ablates."""
        nothing = torch.zeros(sum(len(reader.columns) for reader in self.readers))
        return Ablation(torch.stack([self.members.get(arm, nothing) for arm in arms]), self.readers)


def clamped_latents(
    payload: SteeringPayload, context: StageContext, arms: Arms
) -> ClampedLatents | None:
    """Return the latents to ablate, read once for the whole run; None where arms only add."""
    if payload.get("method", "add") != "clamp":
        return None
    places: dict[tuple[str, int], int] = {}
    readers = []
    for side in SIDES:
        latents = sorted({i for parts in arms.latents.values() for i in parts[side]})
        if latents:
            dictionary = context.dictionary(payload[side]["dictionary"])
            readers.append(LatentReader.of(dictionary, latents).to(context.device))
            places |= {(side, latent): len(places) + n for n, latent in enumerate(latents)}
    members = {}
    for arm, parts in arms.latents.items():
        members[arm] = torch.zeros(len(places))
        for side in SIDES:
            members[arm][[places[side, latent] for latent in parts[side]]] = 1.0
    return ClampedLatents(tuple(readers), members)
