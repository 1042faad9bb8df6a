"""Generated texts cut into their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, takewhile

from loopscope.worker.models import LoadedModel


def token_ends(
    model: LoadedModel, opening: list[int], generated: Sequence[int], text: str
) -> list[int]:
    """Return where each generated token ends in the text that they all add to the opening.

    A token that ends within a character adds nothing until the one that completes it.
    """
    beginnings = (
        model.continuation(opening, list(generated[: count + 1])) for count in range(len(generated))
    )
    shared = (_shared(beginning, text) for beginning in beginnings)
    ends = list(accumulate(shared, max))
    if ends:
        ends[-1] = len(text)
    return ends


def _shared(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
