"""A server in a thread of the test, and plain requests to it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loopscope.server.application import application
from loopscope.server.identity import Identity
from loopscope.server.process import Server, bound_socket
from loopscope.server.settings import ServerSettings
from loopscope.server.watching import Watches
from loopscope.state.folder import StateFolder

TOKEN = "a-token-of-the-tests-that-is-long-enough"
KINDS = "/apis/loopscope.dev/v1alpha1"
HERE = f"{KINDS}/namespaces/default"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
SECONDS_MAX = 60


@dataclass(frozen=True)
class Answer:
    """A response: its status, its headers, and what it says."""

    code: int
    headers: dict[str, str]
    body: Any


class Watch:
    """An open watch; each ``next`` is one event."""

    def __init__(self, connection: http.client.HTTPConnection, path: str, accept: str) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}", "Accept": accept}
        connection.request("GET", path, headers=headers)
        self._connection = connection
        self._response = connection.getresponse()
        self.code = self._response.status

    def next(self) -> dict[str, Any]:
        line = self._response.readline()
        return json.loads(line) if line else {}

    def rest(self) -> list[dict[str, Any]]:
        """Return what comes until the watch ends."""
        return [json.loads(line) for line in self._response]

    def close(self) -> None:
        self._connection.close()


@dataclass
class Served:
    """A server that runs, by its port."""

    port: int
    state: StateFolder
    watches: Watches

    def __call__(
        self,
        path: str,
        method: str = "GET",
        body: Any = None,
        *,
        kind: str = "application/json",
        **headers: str,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS_MAX)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {TOKEN}"}
        given |= {"Content-Type": kind} if content is not None else {}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        given = {name: value for name, value in given.items() if value}
        try:
            connection.request(method, path, content, given)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        said = json.loads(text) if is_json else text
        return Answer(response.status, dict(response.headers), said)

    def watch(self, path: str, accept: str = "application/json") -> Watch:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS_MAX)
        return Watch(connection, path, accept)


@contextmanager
def served(
    state: StateFolder,
    folder: Path,
    now: Any,
    identity: Identity | None = None,
    port: int = 0,
    **settings: Any,
) -> Iterator[Served]:
    """Serve a state folder until the end of the block, over plain HTTP unless with an identity."""
    chosen = replace(ServerSettings(folder=folder, root=folder), **settings)
    listening = bound_socket(port)
    token = identity.token if identity is not None else TOKEN
    app, watches = application(state, chosen, token, now)
    server = Server(app, chosen, watches.end, identity)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield Served(listening.getsockname()[1], state, watches)
    finally:
        server.stop()
        thread.join(SECONDS_MAX)
