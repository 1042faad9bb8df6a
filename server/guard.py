"""The door: only this machine's user, with the token, by an address of loopback, is let in.

A page of another site cannot speak to the server although the browser runs on this machine: its
``Origin`` is refused, a name that leads here by rebinding is refused by its ``Host``, and it has no
token.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loopscope.server.answers import Refused
from loopscope.server.settings import ServerSettings

HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")
"""The names of loopback, with or without a port."""
READY_PATH = "/readyz"
OPEN_PATHS = ("/healthz", "/livez", READY_PATH)
"""They say that the server lives, to anyone."""
SHELL_PATHS = ("/page/static/", "/page/reports/")
"""Below them lie the page's own files, which tell nothing, and reports, whose addresses are secret:
a frame sends no token."""
_FORMS = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
"""What a form of any page can send without being asked."""


class Guard:
    """Refuses what does not come from the user of this machine (ASGI)."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        """Guard an application; without a token it shows what everyone of this machine may see."""
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it with a refusal."""
        if scope["type"] == "http":
            try:
                self._check(scope["scheme"], scope["path"], scope["method"], Headers(scope=scope))
            except Refused as refused:
                await refused.response()(scope, receive, send)
                return
            await _answered(self._app, scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)

    def _check(self, scheme: str, path: str, method: str, headers: Headers) -> None:
        _check_host(headers)
        _check_origin(scheme, headers)
        if path not in (*OPEN_PATHS, "/") and not path.startswith(SHELL_PATHS):
            self._check_token(headers)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method not in ("GET", "HEAD") and kind in _FORMS:
            raise Refused(415, f"Content-Type: {kind}: expected JSON")

    def _check_token(self, headers: Mapping[str, str]) -> None:
        if self._token is None:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip().encode() if scheme.lower() == "bearer" else b""
        if not hmac.compare_digest(given, self._token.encode()):
            raise Refused(
                401,
                "Unauthorized: send the token of this server (Authorization: Bearer …), as the "
                "file of `loopscope serve --kubeconfig FILE` does",
                headers={"WWW-Authenticate": 'Bearer realm="loopscope"'},
            )


async def _answered(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request; what the server's end cuts off is told so, if nothing was said yet."""
    is_begun = False

    async def say(message: Message) -> None:
        nonlocal is_begun
        is_begun = True
        await send(message)

    try:
        await app(scope, receive, say)
    except asyncio.CancelledError:
        if not is_begun:
            stopped = Refused(503, "the server was stopped; ask again once it is back")
            await stopped.response()(scope, receive, send)


def _check_host(headers: Headers) -> None:
    hosts = headers.getlist("host")
    if len(hosts) != 1 or HOST.fullmatch(hosts[0].lower()) is None:
        found = ", ".join(hosts) or "none"
        raise Refused(403, f"Host: {found}: expected 127.0.0.1 or localhost")


def _check_origin(scheme: str, headers: Headers) -> None:
    origin = headers.get("origin")
    if origin is not None and origin != f"{scheme}://{headers['host']}":
        raise Refused(403, f"Origin: {origin}: pages of other sites may not ask")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Refused(403, "Sec-Fetch-Site: pages of other sites may not ask")


async def body_of(request: Request, settings: ServerSettings) -> bytes:
    """Return the body of a request; raises Refused when it is too large or too slow."""
    size_max = settings.body_bytes_max
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length) > size_max:
        raise _too_large(size_max)
    content = bytearray()
    try:
        async with asyncio.timeout(settings.body_seconds_max):
            async for piece in request.stream():
                content += piece
                if len(content) > size_max:
                    raise _too_large(size_max)
    except TimeoutError:
        seconds = settings.body_seconds_max
        refusal = f"the body did not come whole within {seconds:g} s"
        raise Refused(408, refusal, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise Refused(400, "the client went before its request was whole") from None
    return bytes(content)


def _too_large(size_max: int) -> Refused:
    text = f"the body is larger than {size_max:,} bytes; keep texts in files"
    return Refused(413, text, headers={"Connection": "close"})
