"""Bundles as a static site: an index, and of each bundle its report and its files.

What a bundle holds was exported to be shown to others, so no token is asked for; still only this
machine is served. Only files that lie in a bundle are answered, and none through a link.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from loopscope.reports.page.bundles import BundleLine, render_bundles
from loopscope.server.answers import Refused
from loopscope.server.guard import Guard
from loopscope.specs.json_values import JsonObject
from loopscope.state.failures import TerminalFailure

REPORT, STATUS, SPEC = "report.html", "status.json", "spec.yaml"
STATUS_BYTES_MAX = 16 * 1024 * 1024
_SEEN = {
    ".html": "text/html",
    ".json": "application/json",
    ".txt": "text/plain",
    ".yaml": "text/plain",
}
"""What a browser shows; everything else is saved."""
_HEADERS = {
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox allow-scripts allow-downloads allow-popups "
    "allow-popups-to-escape-sandbox; frame-ancestors 'none'",
}
"""Each page runs as of an origin of its own; its own policy says which script may run in it."""


def bundles_in(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the bundles at or directly below some folders, by the names of their folders.

    Raises TerminalFailure where there is none, or two of one name.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        below = sorted(folder.iterdir()) if folder.is_dir() else []
        here = [one for one in (folder, *below) if _is_bundle(one)]
        if not here:
            raise TerminalFailure(
                "NoBundle",
                f"{folder} holds no bundle: expected {REPORT} and {STATUS} in it or in a folder "
                "below it, as `loopscope export` writes them",
            )
        for one in here:
            name = one.resolve().name
            if name in found and found[name] != one.resolve():
                raise TerminalFailure(
                    "BundleTwice", f"two bundles are called {name}: {found[name]} and {one}"
                )
            found[name] = one.resolve()
    return found


def _is_bundle(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (REPORT, STATUS))


def bundle_application(folders: Sequence[Path]) -> Starlette:
    """Return the application (ASGI) of the bundles in some folders; raises TerminalFailure."""
    bundles_in(folders)

    def index(_: Request) -> Response:
        lines = [_line(name, folder) for name, folder in bundles_in(folders).items()]
        return HTMLResponse(render_bundles(lines), headers=_HEADERS)

    def file(request: Request) -> Response:
        bundle = bundles_in(folders).get(request.path_params["bundle"])
        path = _inside(bundle, request.path_params["path"]) if bundle is not None else None
        if path is None:
            raise Refused(404, "no bundle holds that file")
        kind = _SEEN.get(path.suffix)
        name = None if kind is not None else path.name
        kind = kind or "application/octet-stream"
        return FileResponse(path, media_type=kind, headers=_HEADERS, filename=name)

    made = Starlette(
        routes=[Route("/", index), Route("/{bundle}/{path:path}", file)],
        middleware=[Middleware(Guard, token=None)],
        exception_handlers={Refused: _refused, TerminalFailure: _gone},
    )
    made.router.redirect_slashes = False
    return made


def _inside(bundle: Path, path: str) -> Path | None:
    """Return a file of a bundle; None for what is not one, lies elsewhere or is a link."""
    if "\0" in path or "\\" in path:
        return None
    place = bundle
    for step in path.split("/"):
        if step in ("", ".", "..") or step.startswith("."):
            return None
        place = place / step
        try:
            if place.is_symlink():
                return None
        except OSError:  # a name that is too long for any file
            return None
    return place if place.is_file() else None


def _line(name: str, folder: Path) -> BundleLine:
    """Return what the index says of a bundle: its experiment, gate and verdict."""
    summaries: dict[str, JsonObject] = {}
    experiment = ""
    for one in _status(folder):
        kind = str(one.get("kind"))
        summaries[kind] = _part(_part(one, "status"), "summary")
        if kind == "Experiment":
            experiment = str(_part(one, "metadata").get("name", ""))
    files = tuple(
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and _inside(folder, str(path.relative_to(folder))) is not None
    )
    gate = str(summaries.get("Mapping", {}).get("verdict", ""))
    verdict = str(summaries.get("Steering", {}).get("verdict", ""))
    return BundleLine(name, experiment, gate, verdict, files)


def _part(document: JsonObject, name: str) -> JsonObject:
    """Return an object within a document; what is none counts as empty, for others wrote it."""
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _status(folder: Path) -> list[JsonObject]:
    path = folder / STATUS
    try:
        if path.stat().st_size > STATUS_BYTES_MAX:
            return []
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _refused(_: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused)
    return refused.response()


def _gone(_: Request, failure: Exception) -> Response:
    assert isinstance(failure, TerminalFailure)
    return Refused(404, failure.message).response()
