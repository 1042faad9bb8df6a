"""The choice among texts that were read: each once, and a sample of them."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Sequence

from loopscope.specs.canonical import canonical_json
from loopscope.specs.texts.source import ReadTexts


def distinct(found: ReadTexts, same: Callable[[str], str]) -> ReadTexts:
    """Return the first of all texts that ``same`` makes equal, in their order."""
    first: dict[str, int] = {}
    for place, text in enumerate(found.texts):
        first.setdefault(same(text), place)
    return _at(found, list(first.values()))


def sampled(found: ReadTexts, size: int, seed: int, same: Callable[[str], str]) -> ReadTexts:
    """Return ``size`` of the texts, in their order.

    Which ones depends on the seed and the texts alone, not on their order or number.
    Raises ValueError where there are fewer.
    """
    if len(found.texts) < size:
        raise ValueError(f"sample.size is {size:,}, but there are {len(found.texts):,} texts")
    ranks = [_rank(seed, same(text)) for text in found.texts]
    return _at(found, sorted(heapq.nsmallest(size, range(len(ranks)), key=ranks.__getitem__)))


def _at(found: ReadTexts, places: Sequence[int]) -> ReadTexts:
    columns = {name: [labels[i] for i in places] for name, labels in found.columns.items()}
    return ReadTexts([found.texts[i] for i in places], columns, found.read)


def _rank(seed: int, text: str) -> str:
    return hashlib.sha256(canonical_json(["sample", seed, text]).encode()).hexdigest()
