"""A proxy before an S3 server that does to requests what networks and servers do.

``choose(method, path)`` names the fault of each request; without one it is passed on as it came.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Fault = Literal[
    "refused",  # the connection ends before anything was read
    "cut on its way up",  # half of the request reaches the server
    "harmed on its way up",  # one byte of it is another one
    "answer lost",  # the server has done it, and nobody hears so
    "cut on its way down",  # half of the answer comes back
    "harmed on its way down",  # one byte of it is another one
    "server error",
    "throttled",
    "clock too far off",
    "no right",
]
Choose = Callable[[str, str], Fault | None]

PASSING: tuple[Fault, ...] = (
    "refused", "cut on its way up", "answer lost", "cut on its way down", "server error",
    "throttled",
)  # fmt: skip
"""What ends by itself."""

_ANSWERS: dict[str, tuple[int, str, str]] = {
    "server error": (500, "InternalError", "We encountered an internal error."),
    "throttled": (503, "SlowDown", "Please reduce your request rate."),
    "clock too far off": (403, "RequestTimeTooSkewed", "The difference is too large."),
    "no right": (403, "AccessDenied", "Access Denied"),
}


class Done(NamedTuple):
    """A request that was done, and whose sender was told so."""

    method: str
    path: str
    at: float
    """When, in seconds since the epoch."""


class Message(NamedTuple):
    """A request or an answer, as it travels."""

    head: bytes
    body: bytes

    @property
    def words(self) -> list[str]:
        return self.head.split(b"\r\n", 1)[0].decode().split(" ")


@dataclass
class Proxy:
    """Listens on ``endpoint`` until ``close``; ``struck`` counts the faults."""

    server_port: int
    choose: Choose = lambda method, path: None
    change: Callable[[bytes], bytes] = lambda body: body
    """What is done to the body of each answer."""
    struck: Counter[Fault] = field(default_factory=Counter)
    asked: list[tuple[str, str]] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            reader = client.makefile("rb")
            while (request := _read(reader)) is not None and self._handled(client, request):
                pass

    def _handled(self, client: socket.socket, request: Message) -> bool:
        """Pass a request on, or do what was chosen; False when the connection is over."""
        method, path = request.words[:2]
        self.asked.append((method, path))
        fault = self.choose(method, path)
        if fault is not None:
            self.struck[fault] += 1
        if fault in _ANSWERS:
            client.sendall(_answer(*_ANSWERS[fault]))
            return True
        if fault == "refused":
            return False
        with socket.create_connection(("127.0.0.1", self.server_port), timeout=60) as server:
            if fault == "harmed on its way up":
                request = _harmed(request)
            whole = request.head + request.body
            if fault == "cut on its way up":
                server.sendall(whole[: len(whole) - len(request.body) // 2 - 1])
                return False
            server.sendall(whole)
            answer = _read(server.makefile("rb"), of_head=method == "HEAD")
        if answer is None or fault == "answer lost":
            return False
        answer = _with_body(answer, self.change(answer.body))
        if fault == "harmed on its way down":
            answer = _harmed(answer)
        whole = answer.head + answer.body
        client.sendall(whole[: len(whole) // 2] if fault == "cut on its way down" else whole)
        if fault is None and answer.words[1].startswith("2"):
            self.done.append(Done(method, path, time.time()))
        return fault != "cut on its way down" and b"connection: close" not in answer.head.lower()


@contextmanager
def proxied(server_port: int, choose: Choose = lambda method, path: None) -> Iterator[Proxy]:
    """Run a proxy for the time of the context."""
    proxy = Proxy(server_port, choose)
    try:
        yield proxy
    finally:
        proxy.close()


def _read(stream: object, *, of_head: bool = False) -> Message | None:
    """Read one message with a length, or one that ends with the connection; None at the end."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()  # type: ignore[attr-defined]
        if not line:
            return None
        head += line
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    chunked = re.search(rb"\r\ntransfer-encoding: *chunked", head, re.IGNORECASE)
    assert not chunked, head
    if of_head or length is None:
        return Message(head, b"")
    body = stream.read(int(length[1]))  # type: ignore[attr-defined]
    return Message(head, body) if len(body) == int(length[1]) else None


def _harmed(message: Message) -> Message:
    return Message(message.head, bytes(byte ^ 1 for byte in message.body[:1]) + message.body[1:])


def _with_body(message: Message, body: bytes) -> Message:
    if body == message.body:
        return message
    length = f"\r\nContent-Length: {len(body)}".encode()
    return Message(re.sub(rb"\r\ncontent-length: *\d+", length, message.head, flags=re.I), body)


def _answer(status: int, code: str, message: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return f"HTTP/1.1 {status} {code}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
