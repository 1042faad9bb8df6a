"""Logs: the newest lines that workers wrote about the jobs of an object."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopscope.server.answers import as_json
from loopscope.server.page.site import PREFIX, Site, found, key_of
from loopscope.specs.json_values import Json
from loopscope.specs.keys import Key
from loopscope.state.workers import log_paths
from loopscope.views.worker_logs import WorkerLogReader, action_digests

LINES_MAX = 500
CHARACTERS_MAX = 2_000
FOLLOWED_MAX = 8
"""Objects whose logs are read on from where the last answer ended; another begins anew."""


def routes(site: Site) -> list[Route]:
    """Return the route of the logs."""
    followed = Followed(site)

    def logs(request: Request) -> Response:
        lines: list[Json] = [*followed.lines(key_of(request))]
        return as_json({"lines": lines, "linesMax": LINES_MAX, "folder": str(site.state.logs)})

    return [Route(f"{PREFIX}/logs/{{kind}}/{{namespace}}/{{name}}", logs)]


class _Tail:
    """The newest lines of some actions; the files are read on from where they were left."""

    def __init__(self, digests: frozenset[str]) -> None:
        self.digests = digests
        self.newest: deque[str] = deque(maxlen=LINES_MAX)
        self._readers: dict[Path, WorkerLogReader] = {}

    def read(self, paths: list[Path]) -> list[str]:
        for path in paths:
            reader = self._readers.setdefault(path, WorkerLogReader(path))
            lines = reader.new_lines(set(self.digests))
            self.newest.extend(line[:CHARACTERS_MAX] for line in lines)
        return list(self.newest)


class Followed:
    """The logs of the objects that were asked for last."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._tails: OrderedDict[Key, _Tail] = OrderedDict()
        self._lock = threading.Lock()

    def lines(self, key: Key) -> list[str]:
        """Return the newest lines about an object and what it owns; raises Refused."""
        with self._site.state.database.read() as connection:
            record = found(connection, key)
            digests = frozenset(action_digests(connection, [record.key]))
        with self._lock:
            tail = self._tails.get(key)
            if tail is None or tail.digests != digests:
                tail = self._tails[key] = _Tail(digests)
            self._tails.move_to_end(key)
            if len(self._tails) > FOLLOWED_MAX:
                self._tails.popitem(last=False)
            return tail.read(log_paths(self._site.state.logs))
