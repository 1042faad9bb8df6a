"""What the test files share: seeds in handfuls, so that a failure names few of them."""

from __future__ import annotations

from tests.simulation.play import play

SEEDS_PER_TEST = 25


def handfuls(first: int, number: int) -> list[range]:
    """Return ranges of seeds that make up ``number`` from ``first`` on."""
    return [
        range(start, min(start + SEEDS_PER_TEST, first + number))
        for start in range(first, first + number, SEEDS_PER_TEST)
    ]


def assert_all_hold(seeds: range) -> None:
    """Play the seeds; fail with the first that breaks, and with how to see it again."""
    for seed in seeds:
        played = play(seed)
        last = "\n  ".join(played.trace[-12:])
        assert played.broken is None, (
            f"seed {seed}: {played.broken}\n  {last}\nreplay: {played.replay}"
        )
