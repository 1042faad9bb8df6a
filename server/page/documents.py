"""Documents made of artifacts: reports of experiments and studies, and two side by side."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from loopscope.server.answers import Refused, as_json
from loopscope.server.page.apart import Apart
from loopscope.server.page.objects import report_version
from loopscope.server.page.site import PREFIX, Site, found, key_of, named_key
from loopscope.specs.keys import Key
from loopscope.state.db.connection import Connection
from loopscope.views.stages import descendants

KEPT_MAX = 8
"""Reports that lie in the scratch folder; they may take megabytes each."""
REPORT_HEADERS = {
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox allow-scripts allow-downloads allow-popups; "
    "frame-ancestors 'self'",
}
"""A report runs as of an origin of its own: whatever slipped into it reads no token and asks
nothing. What scripts may run in it says its own policy."""


def routes(site: Site) -> list[Route]:
    """Return the routes of reports and comparisons."""
    documents = Documents(site)
    return [
        Route(f"{PREFIX}/reports/{{capability}}/{{kind}}/{{namespace}}/{{name}}", documents.report),
        Route(f"{PREFIX}/compare", documents.comparison),
    ]


class Documents:
    """Makes reports and comparisons when they are asked for, and keeps the last ones."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._apart = Apart(site)
        self._kept: OrderedDict[Key, tuple[str, Path]] = OrderedDict()

    async def report(self, request: Request) -> Response:
        """Return a report as of now; its address is enough to read it."""
        key = key_of(request)
        if not self._site.allows(request.path_params["capability"], "report", *key):
            raise Refused(404, "the server could not find the requested resource")
        version = await run_in_threadpool(self._version, key)
        kept = self._kept.get(key)
        if kept is None or kept[0] != version:
            path = self._site.scratch_folder / f"{self._site.capability(*key)}.html"
            name = key.name if key.kind == "Experiment" else f"{key.kind.lower()}/{key.name}"
            place = ("--namespace", key.namespace, "--output", str(path))
            await self._apart.run("report", name, *place)
            self._keep(key, version, path)
        _, path = self._kept[key]
        return FileResponse(path, media_type="text/html", headers=REPORT_HEADERS)

    async def comparison(self, request: Request) -> Response:
        """Return two experiments of a namespace side by side, as ``loopscope compare`` does."""
        query = request.query_params
        namespace = query.get("namespace", "default")
        keys = [named_key("Experiment", namespace, query.get(one, "")) for one in ("a", "b")]
        said = await self._apart.run(
            *("compare", keys[0].name, keys[1].name, "--namespace", namespace),
            *("--output", "json"),
        )
        return as_json(json.loads(said))

    def _version(self, key: Key) -> str:
        with self._site.state.database.read() as connection:
            return _version_of(connection, key)

    def _keep(self, key: Key, version: str, path: Path) -> None:
        self._kept[key] = (version, path)
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT_MAX:
            _, (_, old) = self._kept.popitem(last=False)
            old.unlink(missing_ok=True)


def _version_of(connection: Connection, key: Key) -> str:
    record = found(connection, key)
    return report_version([record, *descendants(connection, [record])])
