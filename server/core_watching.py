"""Watches of namespaces and events, which have no change log: they are looked at every second.

Operators wait for namespaces, people follow events. Few do so, so each watch looks for itself; how
many there may be is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from loopscope.server.answers import Refused, encoded
from loopscope.server.choosing import whole_number
from loopscope.server.streams import WatchResponse
from loopscope.specs.json_values import JsonObject

LOOK_SECONDS = 1.0
WATCHES_MAX = 50
SECONDS_MAX = 1800
"""Of one watch; clients then watch again from where they were."""


class Present(NamedTuple):
    """What is there: its version, and the document that a client asked for."""

    version: int
    document: JsonObject


Look = Callable[[], Mapping[str, Present]]


class CoreWatches:
    """The watches of what core Kubernetes has, of one server."""

    def __init__(self, ended: asyncio.Event) -> None:
        """End all of them when the event is set: the server stops."""
        self._count = 0
        self._ended = ended

    def open(self, request: Request, look: Look) -> WatchResponse:
        """Return a watch; raises Refused when there are too many."""
        after = whole_number(request.query_params, "resourceVersion") or 0
        if request.query_params.get("sendInitialEvents") == "true":
            raise Refused(422, "sendInitialEvents: list namespaces and events first")
        seconds = whole_number(request.query_params, "timeoutSeconds") or SECONDS_MAX
        if self._count >= WATCHES_MAX:
            text = f"{WATCHES_MAX} watches of namespaces and events are open; try later"
            raise Refused(429, text, headers={"Retry-After": "5"})
        self._count += 1
        return WatchResponse(self._lines(look, after, min(seconds, SECONDS_MAX)), self._close)

    def _close(self) -> None:
        self._count -= 1

    async def _lines(self, look: Look, after: int, seconds: float) -> AsyncIterator[bytes]:
        """Yield what is there and newer than a version, then what comes, changes and goes."""
        clock = asyncio.get_running_loop().time
        end_at, known = clock() + seconds, dict[str, Present]()
        while clock() < end_at:
            found = await run_in_threadpool(look)
            for name, one in found.items():
                before = known.get(name)
                if before is None and one.version > after:
                    yield _line("ADDED", one)
                elif before is not None and one.version > before.version:
                    yield _line("MODIFIED", one)
            for name in known.keys() - found.keys():
                yield _line("DELETED", known[name])
            known = dict(found)
            try:
                await asyncio.wait_for(self._ended.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue
            return


def _line(word: str, one: Present) -> bytes:
    return encoded({"type": word, "object": one.document}) + b"\n"
