"""The latents that evidence and report show, and the prompts beside the top ones, in one order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from loopscope.specs.artifacts.gate import GateAnchor
from loopscope.specs.payloads.steering import Side

LATENTS_MAX = 40
"""Shown latents, controls aside: a report stays readable, and an evidence reads few prompts."""
ASKED_LATENTS_MAX = 100
"""Latents of one question: all that an evidence shows, and room for some of one's own."""

Role = Literal["anchor", "child", "control", "candidate"]


@dataclass(frozen=True)
class ShownLatent:
    """A latent and why it is shown; ``anchor`` is that of a child or of a control, else None."""

    side: Side
    latent: int
    role: Role
    anchor: int | None = None


def shown_latents(
    anchors: Sequence[GateAnchor], fine_candidates: Iterable[int]
) -> list[ShownLatent]:
    """Return anchors, their children, then the other fine candidates, each latent once."""
    found = [ShownLatent("coarse", entry["coarse"], "anchor") for entry in anchors]
    found += [
        ShownLatent("fine", child, "child", entry["coarse"])
        for entry in anchors
        for child in entry["children"]
    ]
    found += [ShownLatent("fine", latent, "candidate") for latent in fine_candidates]
    first: dict[tuple[Side, int], ShownLatent] = {}
    for one in found:
        first.setdefault((one.side, one.latent), one)
    return list(first.values())


def drawn_order(texts: Sequence[str]) -> list[int]:
    """Return the numbers of texts in the order of their sha256.

    It has nothing to do with what they say, and is always the same.
    """
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    return sorted(range(len(texts)), key=hashes.__getitem__)
