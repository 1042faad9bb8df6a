"""Stopping early: in which order openings are steered, and after which of them somebody looks.

Both are known before any text is: functions of the openings, the seed and the size of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from loopscope.specs.fields import Spec, Unit
from loopscope.specs.payloads.steering import Opening
from loopscope.specs.splits import rank_of
from loopscope.specs.steering_json import StopEarlyJson

EVERY = 20


class StopEarly(Spec):
    """When a steering may end before all of its openings were steered."""

    every: Annotated[int, Field(ge=1, le=100_000), Unit("openings")] = EVERY
    """Openings between two looks; a group is not divided, so a block may hold a few more."""


def why_not_early(whole: str) -> str:
    """Return why a steering of a whole cannot stop early."""
    return (
        f"steering.stopEarly: {whole} pools the effects of its experiments, and where one stops as "
        "soon as it is seen the effect comes out too large; leave stopEarly out"
    )


def blocks_of(
    openings: Sequence[Opening], rule: StopEarlyJson | None, seed: int
) -> list[list[int]]:
    """Return the openings (their places) of each block, in the order of the looks.

    The order is that of a hash of seed and text, so that a list that is sorted by subject is not
    cut by subject; groups stay together, as they come. Each block but the last has at least
    ``every`` openings. Without a rule all are one block.
    """
    every = len(openings) if rule is None else rule["every"]
    members: dict[tuple[str, int], list[int]] = {}
    for place, opening in enumerate(openings):
        own = ("group", opening["group"]) if "group" in opening else ("alone", place)
        members.setdefault(own, []).append(place)
    units = sorted(
        members.values(), key=lambda places: (rank_of(seed, openings[places[0]]["text"]), places[0])
    )
    blocks: list[list[int]] = []
    for unit in units:
        if not blocks or len(blocks[-1]) >= every:
            blocks.append([])
        blocks[-1] += unit
    return blocks


def steered_openings(
    openings: Sequence[Opening], rule: StopEarlyJson | None, seed: int, n: int
) -> list[Opening]:
    """Return the openings that were steered where ``n`` were, as they stand in the spec."""
    kept: set[int] = set()
    for block in blocks_of(openings, rule, seed):
        if len(kept) >= n:
            break
        kept.update(block)
    return [opening for place, opening in enumerate(openings) if place in kept]


def turns_of(openings: Sequence[Opening], rule: StopEarlyJson, seed: int) -> list[int]:
    """Return the place of each opening in the order of the looks."""
    order = [place for block in blocks_of(openings, rule, seed) for place in block]
    turns = [0] * len(order)
    for turn, place in enumerate(order):
        turns[place] = turn
    return turns
