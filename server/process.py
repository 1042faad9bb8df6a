"""The process: a socket of loopback, TLS, and connections that may not hang."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import socket
import ssl
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from loopscope.server.identity import Identity
from loopscope.server.settings import LOOPBACK, ServerSettings
from loopscope.state.failures import TerminalFailure

BACKLOG = 512
TLS_READ_BYTES = 16 * 1024
"""A buffer that asyncio keeps for each connection; its own 256 kB times 500 watchers are 128 MB."""
WRITE_BYTES_MAX = 64 * 1024
"""What waits for a client that takes it slowly; under TLS asyncio would let 512 kB wait."""
STOP_SECONDS_MAX = 5


def bound_socket(port: int) -> socket.socket:
    """Return a socket that listens on loopback; 0 chooses a free port. Raises TerminalFailure.

    Whoever connects before the server runs waits until it does.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((LOOPBACK, port))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise TerminalFailure(
            "PortInUse",
            f"port {port} of {LOOPBACK} cannot be used ({error.strerror}); name another with "
            "--port, or 0 for any",
        ) from None
    return made


class Server(uvicorn.Server):
    """A server that ends its watches when it is told to stop."""

    def __init__(
        self,
        app: Starlette,
        settings: ServerSettings,
        end_watches: Callable[[], None] = lambda: None,
        identity: Identity | None = None,
    ) -> None:
        """Serve over TLS with an identity, over plain HTTP without one."""
        asyncio.sslproto.SSLProtocol.max_size = TLS_READ_BYTES
        super().__init__(
            uvicorn.Config(
                app,
                http=_protocol(settings),
                ws="none",
                lifespan="on",
                loop="asyncio",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                limit_concurrency=settings.connections_max,
                timeout_graceful_shutdown=STOP_SECONDS_MAX,
                ssl_version=ssl.PROTOCOL_TLS_SERVER,
                ssl_certfile=identity.certificate if identity is not None else None,
                ssl_keyfile=identity.key if identity is not None else None,
            )
        )
        self._end_watches = end_watches

    def stop(self) -> None:
        """Let the server end; may be called from any thread."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop on a signal; the signal is not raised again: ending was what it asked for."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the watches first: they would keep their connections open."""
        self._end_watches()
        await super().shutdown(sockets)


def _protocol(settings: ServerSettings) -> type[asyncio.Protocol]:
    class BoundedProtocol(H11Protocol):
        """A connection that is cut when its next request, or its reader, takes too long."""

        _deadline: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            transport.set_write_buffer_limits(WRITE_BYTES_MAX)
            self._expect_request()

        def _expect_request(self) -> None:
            self._deadline = self.loop.call_later(settings.head_seconds_max, self.transport.abort)

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before and self._deadline is not None:
                self._deadline.cancel()

        def on_response_complete(self) -> None:
            waiting = self.cycle
            super().on_response_complete()
            if self.cycle is waiting and not self.transport.is_closing():
                self._expect_request()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stuck = self.loop.call_later(settings.send_seconds_max, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._stuck is not None:
                self._stuck.cancel()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._deadline, self._stuck):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

    return BoundedProtocol
