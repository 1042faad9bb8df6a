"""Somebody else's hand between two steps of the product, at a failpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loopscope.state import failpoints
from tests.simulated import Crash


@contextmanager
def somebody(
    act: Callable[[], object], *, at: str, nth: int = 1, again: bool = False
) -> Iterator[list[str]]:
    """Call ``act`` at the n-th arrival at a failpoint, with ``again`` also at all that follow.

    What it does may come by there itself; that does not count. What is yielded tells how often
    it was called.
    """
    left, acted, busy = [nth], [], []

    def handler(name: str) -> None:
        if name != at or busy:
            return
        left[0] -= 1
        if left[0] == 0 or (again and left[0] < 0):
            acted.append(name)
            busy.append(True)
            act()
            busy.clear()

    with failpoints.handled_by(handler):
        yield acted


def power_fails() -> None:
    """End the process here: an act for ``somebody``."""
    raise Crash
