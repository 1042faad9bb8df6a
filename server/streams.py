"""Streams: responses that go on until the client goes, or what they tell of ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from starlette.types import Receive, Scope, Send

PIECE_BYTES_MAX = 16 * 1024
"""What fits into one record of TLS. OpenSSL keeps room for the largest piece that a connection was
given: with hundreds of watchers that is most of a server's memory."""


def in_pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines into pieces of at most ``PIECE_BYTES_MAX``; a longer line is one of its own."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        if held and size + len(line) > PIECE_BYTES_MAX:
            yield b"".join(held)
            held, size = [], 0
        held.append(line)
        size += len(line)
    if held:
        yield b"".join(held)


class WatchResponse:
    """The lines of a watch as a response; ``close`` is called once it ends, however it does."""

    def __init__(self, lines: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        self._lines = lines
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines of the watch (ASGI)."""
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            self._close()
            sending.cancel()
            gone.cancel()

    async def _send(self, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for text in self._lines:
            await send({"type": "http.response.body", "body": text, "more_body": True})
            await asyncio.sleep(0)  # others are sent the same, while it is made
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
