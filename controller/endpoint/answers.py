"""The one port of a controller: ``/metrics``, ``/healthz``, ``/livez``, ``/readyz``.

Imported only when ``--metrics-port`` is given.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from loopscope.controller.endpoint.health import Check, Health
from loopscope.state.failures import TerminalFailure

READ_SECONDS_MAX = 10.0
"""A client that says nothing for so long is cut off."""


@dataclass
class Endpoint:
    """What is answered; metrics come once there are any."""

    health: Health
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> list[bytes]:
        """Answer one request."""
        match environ.get("PATH_INFO"):
            case "/healthz" | "/livez":
                return _answer(start, self.health.role, self.health.alive())
            case "/readyz":
                return _answer(start, self.health.role, self.health.ready())
            case "/metrics":
                return list(make_wsgi_app(self.registry)(environ, start))
        start("404 Not Found", [("Content-Type", "text/plain")])
        return [b"here are /metrics, /healthz, /livez and /readyz\n"]


def _answer(start: StartResponse, role: str, checks: Sequence[Check]) -> list[bytes]:
    """Say each check on a line, as the health endpoints of Kubernetes do with ``?verbose``."""
    lines = [
        f"[-]{one.name} failed: {one.trouble}" if one.trouble else f"[+]{one.name} ok"
        for one in checks
    ]
    is_well = not any(one.trouble for one in checks)
    start("200 OK" if is_well else "503 Service Unavailable", [("Content-Type", "text/plain")])
    return ["\n".join([*lines, role, ""]).encode()]


@contextmanager
def served(endpoint: Endpoint, host: str, port: int) -> Iterator[int]:
    """Answer while the context lasts; yield the port (0 chooses a free one).

    Raises TerminalFailure when the port cannot be had.
    """
    try:
        server = make_server(host, port, endpoint, _Server, _Quietly)
    except OSError as error:
        raise TerminalFailure(
            "PortInUse",
            f"port {port} of {host} cannot be used ({error.strerror or error}); name another with "
            "--metrics-port, or 0 for any",
        ) from None
    thread = threading.Thread(target=server.serve_forever, daemon=True, name="endpoint")
    thread.start()
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quietly(WSGIRequestHandler):
    timeout = READ_SECONDS_MAX

    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape every few seconds is no event."""
