"""The page itself: its HTML, its style and its scripts, to anyone on this machine.

They hold nothing of a state folder. What the page shows it asks for with the token, which it takes
from the part of its address behind ``#``, that no request bears.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopscope.server.answers import Refused, as_json
from loopscope.server.page.site import PREFIX, Site
from loopscope.specs.pipeline import NODE_NAMES

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "frame-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""Scripts of this server alone, no ``eval``, no markup from strings, no request to elsewhere."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def routes(site: Site) -> list[Route]:
    """Return the routes of the shell."""
    files = {
        str(path.relative_to(STATIC)): (path.read_bytes(), _TYPES[path.suffix])
        for path in sorted(STATIC.rglob("*"))
        if path.suffix in _TYPES
    }

    def index(request: Request) -> Response:
        return _file(request, *files["live.html"])

    def static(request: Request) -> Response:
        known = files.get(request.path_params["path"])
        if known is None:
            raise Refused(404, "the server could not find the requested resource")
        return _file(request, *known)

    def about(_: Request) -> Response:
        return as_json(
            {
                "writable": site.settings.writable,
                "folder": str(site.state.path.absolute()),
                "stages": [*NODE_NAMES],
            }
        )

    return [
        Route("/", index),
        Route(f"{PREFIX}/static/{{path:path}}", static),
        Route(f"{PREFIX}/about", about),
    ]


def _file(request: Request, content: bytes, media_type: str) -> Response:
    tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    headers = {**HEADERS, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)
