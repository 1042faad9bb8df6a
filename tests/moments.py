"""Somebody else's hand between two steps of the product, at a failpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loopscope.state import failpoints
from tests.simulated import Crash


@contextmanager
def somebody(act: Callable[[], object], *, at: str, nth: int = 1) -> Iterator[list[str]]:
    """Call ``act`` at the n-th arrival at a failpoint; what is yielded tells whether it came."""
    left, acted = [nth], []

    def handler(name: str) -> None:
        if name != at or acted:
            return
        left[0] -= 1
        if left[0] == 0:
            acted.append(name)  # first: what it does may come by here again
            act()

    with failpoints.handled_by(handler):
        yield acted


def power_fails() -> None:
    """End the process here: an act for ``somebody``."""
    raise Crash
