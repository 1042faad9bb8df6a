"""Watches: one reader of the change log, and a bounded queue for each watcher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog
from anyio import CapacityLimiter, to_thread

from loopscope.server.answers import Refused, encoded
from loopscope.server.beginning import Beginnings
from loopscope.server.changes import Batch, Change, ChangeReader, word_for
from loopscope.server.choosing import Choice, whole_number
from loopscope.server.documents import META, Shape
from loopscope.server.lines import Lines
from loopscope.server.settings import ServerSettings
from loopscope.server.streams import in_pieces
from loopscope.specs.json_values import JsonObject
from loopscope.specs.keys import API_VERSION, Key
from loopscope.state.db import objects
from loopscope.state.failures import Failure
from loopscope.state.folder import StateFolder

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
BATCHES_BEHIND_MAX = 100
"""A watcher that is further behind is dropped; batches are shared, so this bounds the memory."""
log = structlog.get_logger()


@dataclass(frozen=True)
class WatchRequest:
    """What a client wants to watch, and from where."""

    choice: Choice
    shape: Shape
    version: int | None
    """None: first what there is, as ADDED."""
    bookmarks: bool
    initial_end: bool
    """Whether a bookmark says where what there was ends and what happens begins."""
    timeout_seconds: float | None


def watch_request(choice: Choice, shape: Shape, query: Mapping[str, str]) -> WatchRequest:
    """Read the parameters of a watch; raises Refused."""
    version = whole_number(query, "resourceVersion")
    timeout = whole_number(query, "timeoutSeconds")
    initial = query.get("sendInitialEvents") == "true"
    if initial and query.get("resourceVersionMatch") != "NotOlderThan":
        raise Refused(400, "sendInitialEvents needs resourceVersionMatch=NotOlderThan", "Invalid")
    for term in choice.fields:
        if term.path[0] == "spec":
            raise Refused(400, "a watch cannot select by fields of spec; use labels")
    return WatchRequest(
        choice,
        shape,
        None if initial else version or None,
        bookmarks=query.get("allowWatchBookmarks") in ("true", "1"),
        initial_end=initial,
        timeout_seconds=float(timeout) if timeout else None,
    )


@dataclass(eq=False)
class Watcher:
    """One watch: what it wants, and the batches that it has not sent yet."""

    request: WatchRequest
    queue: asyncio.Queue[Batch | None] = field(
        default_factory=lambda: asyncio.Queue(BATCHES_BEHIND_MAX)
    )
    expired: bool = False

    def offer(self, batch: Batch) -> bool:
        """Take a batch; return False when the watcher is too far behind."""
        try:
            self.queue.put_nowait(batch)
        except asyncio.QueueFull:
            self.end()
            return False
        return True

    def end(self, *, expired: bool = False) -> None:
        """Let the watch end, instead of what it has not sent yet."""
        self.expired = expired
        while not self.queue.empty():
            self.queue.get_nowait()
        self.queue.put_nowait(None)


class Watches:
    """All watches of a server. Everything but reading happens in the event loop's thread."""

    def __init__(
        self, state: StateFolder, settings: ServerSettings, now: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._now = now
        self._reader = ChangeReader(state)
        self._beginnings = Beginnings(state, self._reader, now)
        self._lines_made = Lines()
        self._watchers: set[Watcher] = set()
        self._own_thread = CapacityLimiter(1)
        """Not one of the requests': those may all wait for a lock of the database, for a minute."""
        self._open = False
        self.ended = asyncio.Event()
        """Set when the server stops: other streams end as well."""

    @property
    def count(self) -> int:
        """How many watches are open."""
        return len(self._watchers)

    async def begin(self) -> None:
        """Read what there is; only then watches may be opened, so that they miss nothing."""
        await to_thread.run_sync(self._reader.begin, limiter=self._own_thread)
        self._open = True

    async def run(self) -> None:
        """Read the change log until the end, and hand on what is new. Comes after ``begin``."""
        try:
            while not self.ended.is_set():
                await asyncio.sleep(self._settings.poll_seconds)
                await self._look()
        finally:
            self.end()

    async def _look(self) -> None:
        try:
            if not self._open:
                await self.begin()
            self._hand_on(await to_thread.run_sync(self._reader.look, limiter=self._own_thread))
        except objects.Gone as gone:
            log.warning("the change log no longer fits; watches end", why=str(gone))
            self._open = False
            self._end(expired=True)
        except (Failure, OSError) as failure:
            log.warning("the change log could not be read; trying again", why=str(failure))

    def end(self) -> None:
        """End all watches, and refuse new ones: the server stops."""
        self._open = False
        self.ended.set()
        self._end(expired=False)

    def open(self, request: WatchRequest) -> Watcher:
        """Return a new watch; raises Refused when there are too many."""
        if not self._open:
            text = "the change log is not read now; try again"
            raise Refused(503, text, headers={"Retry-After": "1"})
        if len(self._watchers) >= self._settings.watchers_max:
            raise Refused(
                429,
                f"{self._settings.watchers_max} watches are open, no more are allowed; try later",
                headers={"Retry-After": "5"},
            )
        watcher = Watcher(request)
        self._watchers.add(watcher)
        return watcher

    def close(self, watcher: Watcher) -> None:
        """Forget a watch."""
        self._watchers.discard(watcher)

    async def first(self, watcher: Watcher) -> Batch:
        """Return what a watch that resumes has missed; raises Refused (410)."""
        request = watcher.request
        if request.version is None:
            return Batch(0, ())
        return await self._beginnings.missed(request.choice, request.version)

    async def lines(self, watcher: Watcher, missed: Batch) -> AsyncIterator[bytes]:
        """Yield the lines of a watch: what there is or was missed, then what happens."""
        request, sent = watcher.request, Sent(missed.upto, missed.upto)
        if request.version is None:
            async for page in self._beginnings.present(request.choice, request.shape):
                sent.see(page.version, page.versions)
                for piece in in_pieces(page.lines):
                    yield piece
        else:
            for piece in in_pieces(self._lines(request, missed.changes)):
                yield piece
        del missed  # a watch goes on for hours, and would hold it as long
        if request.initial_end:
            yield self._bookmark(request, sent.upto, initial_end=True)
        async for piece in self._happening(watcher, sent):
            yield piece

    async def _happening(self, watcher: Watcher, sent: Sent) -> AsyncIterator[bytes]:
        request, clock = watcher.request, asyncio.get_running_loop().time
        began = clock()
        end_at = began + (request.timeout_seconds or float("inf"))
        bookmark_at = began + self._settings.bookmark_seconds
        while clock() < end_at:
            until = min(end_at, bookmark_at if request.bookmarks else end_at)
            try:
                left = None if until == float("inf") else max(0.0, until - clock())
                batch = await asyncio.wait_for(watcher.queue.get(), left)
            except TimeoutError:
                bookmark_at = clock() + self._settings.bookmark_seconds
                if request.bookmarks:
                    yield self._bookmark(request, sent.upto)
                continue
            if batch is None:
                if watcher.expired:
                    refused = Refused(410, "the change log no longer reaches back that far")
                    yield encoded({"type": "ERROR", "object": refused.document}) + b"\n"
                return
            for piece in in_pieces(self._lines(request, sent.new(batch))):
                yield piece

    def _lines(self, request: WatchRequest, changes: Sequence[Change]) -> Iterator[bytes]:
        now = self._now()
        for change in changes:
            word = word_for(change, request.choice)
            if word is not None:
                yield self._lines_made.line(change, word, request.shape, now=now)

    def _bookmark(self, request: WatchRequest, version: int, *, initial_end: bool = False) -> bytes:
        metadata: JsonObject = {"resourceVersion": str(version)}
        if initial_end:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        kind, api_version = request.choice.resource.kind, API_VERSION
        rows: JsonObject = {}
        if request.shape.as_table:
            kind, api_version, rows = "Table", META, {"columnDefinitions": [], "rows": []}
        made = {"kind": kind, "apiVersion": api_version, "metadata": metadata, **rows}
        return encoded({"type": "BOOKMARK", "object": made}) + b"\n"

    def _hand_on(self, batch: Batch) -> None:
        if not batch.changes:
            return
        for watcher in list(self._watchers):
            if not watcher.offer(batch):
                log.warning("a watcher was too far behind and is dropped")
                self.close(watcher)

    def _end(self, *, expired: bool) -> None:
        for watcher in list(self._watchers):
            watcher.end(expired=expired)
        self._watchers.clear()


@dataclass
class Sent:
    """Up to where a client has everything, and what it has beyond that from its beginning."""

    upto: int
    until: int
    """The newest version that its beginning may hold."""
    keys: dict[Key, int] = field(default_factory=dict)

    def see(self, version: int, versions: Mapping[Key, int]) -> None:
        """Take a page of the beginning, which was read at a version: what it brings is known."""
        self.upto, self.until = self.upto or version, version
        newer = {key: one for key, one in versions.items() if one > self.upto}
        self.keys.update(newer)

    def new(self, batch: Batch) -> list[Change]:
        """Return what of a batch the client does not have; then it has all of the batch."""
        if batch.upto <= self.upto:
            return []
        found = []
        for change in batch.changes:
            has = max(self.upto, self.keys.get(change.key, 0))
            if change.version <= has:
                continue
            knew = change.came is None or change.came <= has
            if change.type == "DELETED" and not knew:
                continue  # it came and went: who saw neither needs to hear of neither
            again = change.type == "ADDED" and knew
            found.append(replace(change, type="MODIFIED", came=None) if again else change)
        self.upto = batch.upto
        if batch.upto >= self.until:
            self.keys.clear()
        return found
