"""An endpoint of a judge on loopback that misbehaves as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Deed = Callable[["Handler", dict[str, Any]], None]
"""What is done with a request: the handler answers as it likes."""


class Handler(BaseHTTPRequestHandler):
    """One request; the deed is the server's next one, or its last for good."""

    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body)
            self.server.seen.append(dict(self.headers))
            deeds = self.server.deeds
            deed = deeds.pop(0) if len(deeds) > 1 else deeds[0]
        try:
            deed(self, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def reply(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Keeps what it was asked, and the headers that came with it."""

    daemon_threads = True

    def __init__(self, deeds: list[Deed]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.deeds, self.lock = deeds, threading.Lock()
        self.asked: list[dict[str, Any]] = []
        self.seen: list[dict[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: object) -> None:
        """A client that went away is no fault."""


@contextmanager
def judging(*deeds: Deed) -> Iterator[Server]:
    """Serve these deeds one after the other, the last for ever."""
    server = Server([*deeds])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(content: object, **more: object) -> bytes:
    found = {
        "model": "judge-2026-11",
        "choices": [{"message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 2},
    } | more
    return json.dumps(found).encode()


def says(content: object, **more: object) -> Deed:
    return lambda handler, _: handler.reply(200, completion(content, **more))


def status(code: int, content: bytes = b"{}", **headers: str) -> Deed:
    return lambda handler, _: handler.reply(code, content, **headers)


def knows(word: str) -> Deed:
    """Judge by a word: the letter of *yes* where the text holds it."""

    def deed(handler: Handler, body: dict[str, Any]) -> None:
        sent = body["messages"][0]["content"]
        text = sent.split("---")[1]
        yes = "A" if "A: yes" in sent else "B"
        no = "B" if yes == "A" else "A"
        handler.reply(200, completion(yes if word in text else no))

    return deed


def hangs_up(handler: Handler, _: dict[str, Any]) -> None:
    handler.connection.close()


def stops_in_the_middle(handler: Handler, _: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.connection.close()


def drips(handler: Handler, _: dict[str, Any]) -> None:
    """Send a byte now and then for as long as somebody listens."""
    handler.send_response(200)
    handler.end_headers()
    gone = threading.Event()
    for _ in range(200):
        handler.wfile.write(b" " * 20_000)
        handler.wfile.flush()
        gone.wait(0.05)


def never_ends(handler: Handler, _: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b"x" * 10_000)
