"""The draw: a sample over the rooms, the same for the same seed and sources."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction

from tests.mutation.operators import Mutant


def sample(
    mutants: Mapping[str, Sequence[Mutant]],
    size: int,
    seed: int,
    unviable: Collection[str] = frozenset(),
) -> list[Mutant]:
    """Return ``size`` mutants, from each room in proportion to how many it has.

    Those that were found not to parse or not to import give their place to the next of their
    room. The rooms take turns, so that the first so many are a sample as well.
    """
    shares = _shares({room: len(each) for room, each in mutants.items()}, size)
    drawn = []
    for room, each in sorted(mutants.items()):
        in_order = sorted(each, key=lambda mutant: mutant.key)
        random.Random(f"{seed}/{room}").shuffle(in_order)
        viable = [mutant for mutant in in_order if mutant.key not in unviable][: shares[room]]
        turns = [Fraction(2 * turn + 1, 2 * len(viable)) for turn in range(len(viable))]
        drawn += [(when, room, mutant) for when, mutant in zip(turns, viable, strict=True)]
    return [mutant for _, _, mutant in sorted(drawn, key=lambda each: each[:2])]


def _shares(sizes: Mapping[str, int], size: int) -> dict[str, int]:
    """Return how many come from each room: the whole part of its share, largest rests first."""
    whole = sum(sizes.values())
    if size >= whole:
        return dict(sizes)
    exact = {room: Fraction(number * size, whole) for room, number in sizes.items()}
    shares = {room: int(share) for room, share in exact.items()}
    by_rest = sorted(exact, key=lambda room: (shares[room] - exact[room], room))
    for room in by_rest[: size - sum(shares.values())]:
        shares[room] += 1
    return shares
