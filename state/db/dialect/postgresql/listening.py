"""Notices of commits, for who would otherwise ask again and again. A hint: the marker is the truth.

What a server tells while nobody is connected is lost, and a connection may be dead without a sign.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg

from loopscope.state.db.dialect.postgresql.connections import CHANGED

REST_SECONDS = 0.5
"""Between two calls, however many commits there are: where much is written, asking is enough."""
END_SECONDS = 0.5
"""How often a listener looks whether it is still wanted."""
Connect = Callable[[], psycopg.Connection[tuple[object, ...]]]
Concerns = Callable[[str], bool]
"""Whether a notice is about a commit that one wants to hear of."""


@contextmanager
def listening(connect: Connect, concerns: Concerns, hear: Callable[[], None]) -> Iterator[None]:
    """Call ``hear`` after commits while the context lasts, in a thread that connects by itself."""
    ended = threading.Event()
    thread = threading.Thread(
        target=_listen, args=(connect, concerns, hear, ended), name="commits", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _listen(
    connect: Connect, concerns: Concerns, hear: Callable[[], None], ended: threading.Event
) -> None:
    while not ended.is_set():
        with suppress(psycopg.Error), connect() as connection:
            connection.execute(f"listen {CHANGED}")
            hear()  # of what was written before it listened
            while not ended.is_set():
                notices = connection.notifies(timeout=END_SECONDS, stop_after=1)
                told = {one.payload for one in notices}
                if any(map(concerns, told)):
                    hear()
                    ended.wait(REST_SECONDS)
        ended.wait(REST_SECONDS)  # the server is gone: the loop, which asks, says so
