"""The stream: one response that says which objects changed, and that anything else did.

A browser has six connections to a server, and a watch is one kind's: so the page has one stream for
all kinds, which is fed as watches are and resumes from a version as they do. It bears names; what
they stand for is read again by who shows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from loopscope.server.answers import encoded
from loopscope.server.changes import Batch, Change
from loopscope.server.choosing import Choice, whole_number
from loopscope.server.documents import Shape
from loopscope.server.page.site import PREFIX, Site, key_json
from loopscope.server.resources import RESOURCES
from loopscope.server.watching import Watcher, WatchRequest
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import Key
from loopscope.state.failures import Failure
from loopscope.views.selectors import parse_selector

BEAT_SECONDS = 5.0
"""Who hears nothing for three beats knows that the server hangs."""


class Everything(Choice):
    """The choice of all objects of all kinds."""

    def may_hold(self, key: Key) -> bool:
        """Whether an object of this name could fit: each does."""
        return True


EVERYTHING = Everything(
    next(iter(RESOURCES.values())), None, (), (), parse_selector(""), by_labels=False
)


def routes(site: Site) -> list[Route]:
    """Return the route of the stream."""
    commits = Commits(site)

    async def stream(request: Request) -> StreamResponse:
        version = whole_number(request.query_params, "since")
        asked = WatchRequest(
            EVERYTHING, Shape(), version, bookmarks=False, initial_end=False, timeout_seconds=None
        )
        watcher = site.watches.open(asked)
        try:
            missed = await site.watches.first(watcher)
        except BaseException:
            site.watches.close(watcher)
            raise
        return StreamResponse(site, commits, watcher, missed)

    return [Route(f"{PREFIX}/stream", stream)]


class Commits:
    """Counts the commits to the database while someone listens; read once for all listeners."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._own_thread = CapacityLimiter(1)
        self._task: asyncio.Task[None] | None = None
        self._listeners = 0
        self.count = 0

    def begin(self) -> None:
        """Count from now on, for one listener more."""
        self._listeners += 1
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def end(self) -> None:
        """Stop counting when the last listener went."""
        self._listeners -= 1
        if self._listeners == 0 and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        seen: int | None = None
        while True:
            with suppress(Failure, OSError):
                marker = await to_thread.run_sync(
                    self._site.state.database.marker, limiter=self._own_thread
                )
                self.count += marker != seen
                seen = marker
            await asyncio.sleep(self._site.settings.poll_seconds)


class StreamResponse:
    """Lines of JSON until the client goes or the server ends (ASGI)."""

    def __init__(self, site: Site, commits: Commits, watcher: Watcher, missed: Batch) -> None:
        self._site = site
        self._commits = commits
        self._watcher = watcher
        self._missed = missed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines."""
        self._commits.begin()
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            self._commits.end()
            self._site.watches.close(self._watcher)
            sending.cancel()
            gone.cancel()

    async def _send(self, send: Send) -> None:
        headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for document in self._documents():
            body = encoded(document) + b"\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _documents(self) -> AsyncIterator[JsonObject]:
        clock = asyncio.get_running_loop().time
        counted, said_at = self._commits.count, clock()
        yield {"type": "begin", "beatSeconds": BEAT_SECONDS}
        upto = self._missed.upto
        if self._missed.changes:
            yield _changes(self._missed)
        self._missed = Batch(upto, ())  # what it held would stay as long as the page is open
        while True:
            batch: Batch | None = None
            try:
                poll = self._site.settings.poll_seconds
                batch = await asyncio.wait_for(self._watcher.queue.get(), poll)
            except TimeoutError:
                pass
            else:
                if batch is None:
                    yield {"type": "end", "expired": self._watcher.expired}
                    return
                if batch.upto > upto:
                    yield _changes(batch)
                    said_at = clock()
            if self._commits.count != counted:
                counted, said_at = self._commits.count, clock()
                yield {"type": "commit"}
            elif clock() - said_at >= BEAT_SECONDS:
                said_at = clock()
                yield {"type": "beat"}


def _changes(batch: Batch) -> JsonObject:
    changed: list[Json] = [_change(one) for one in batch.changes]
    return {"type": "objects", "version": batch.upto, "changed": changed}


def _change(one: Change) -> JsonObject:
    text = one.now.text
    return {
        **key_json(text.key),
        "type": one.type,
        "uid": text.uid,
        "owner": text.owner_uid,
    }


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
