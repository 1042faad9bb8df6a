"""The tree: objects that no other owns, a page at a time; what one owns, when it is opened."""

from __future__ import annotations

import base64
import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopscope.server.answers import Refused, as_json
from loopscope.server.choosing import whole_number
from loopscope.server.page.nodes import nodes
from loopscope.server.page.site import PREFIX, Site
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.pipeline import SHORT_BY_KIND
from loopscope.state.db import objects, roots
from loopscope.state.db.connection import Connection
from loopscope.state.records import ObjectRecord
from loopscope.views.progress import RunProgress

ROWS_MAX = 200
UIDS_MAX = 200
NAMES_MAX = 1_000
KINDS = tuple(SHORT_BY_KIND)
"""Experiments first."""


def routes(site: Site) -> list[Route]:
    """Return the routes of the tree."""
    tree = Tree(site)
    return [
        Route(f"{PREFIX}/tree", tree.page),
        Route(f"{PREFIX}/tree/nodes", tree.again),
        Route(f"{PREFIX}/tree/owned", tree.owned),
        Route(f"{PREFIX}/tree/names", tree.names),
    ]


class Tree:
    """Answers what the tree asks."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def page(self, request: Request) -> Response:
        """Return the next objects without an owner."""
        query = request.query_params
        rows_max = min(whole_number(query, "limit") or ROWS_MAX, ROWS_MAX)
        start = _start(query.get("continue", ""))
        with self._site.state.database.read() as connection:
            version = objects.resource_version(connection)
            records, more = _roots(connection, start, query.get("name", "").strip(), rows_max)
            found: list[Json] = [*nodes(connection, records, now=self._site.now())]
            counted: Json = {**roots.counted(connection)} if start is None else None
        last = records[-1].key if records and more else None
        return as_json(
            {
                "version": version,
                "nodes": found,
                "continue": _token([*last]) if last is not None else "",
                "counted": counted,
            }
        )

    def again(self, request: Request) -> Response:
        """Return objects by their uids; those that are gone are not among them."""
        uids = request.query_params.getlist("uid")[:UIDS_MAX]
        with self._site.state.database.read() as connection:
            records = roots.of_uids(connection, uids)
            found: list[Json] = [*nodes(connection, records, now=self._site.now())]
        return as_json({"nodes": found})

    def owned(self, request: Request) -> Response:
        """Return what an object owns, in the order of the work."""
        with self._site.state.database.read() as connection:
            owners = roots.of_uids(connection, request.query_params.getlist("uid")[:1])
            if not owners:
                raise Refused(404, "the object is gone")
        return as_json({"nodes": owned_nodes(self._site, owners[0])})

    def names(self, request: Request) -> Response:
        """Return the experiments of a namespace that are no sweeps, also those with an owner."""
        namespace = request.query_params.get("namespace", "default")
        with self._site.state.database.read() as connection:
            found: list[Json] = [*roots.names_of_single(connection, namespace, NAMES_MAX)]
        return as_json({"names": found})


def owned_nodes(site: Site, owner: ObjectRecord) -> list[Json]:
    """Return what an object owns as nodes; stages with their progress."""
    now = site.now()
    rows, _ = RunProgress(site.state, [owner.key]).read(now) if _has_stages(owner) else ([], None)
    with site.state.database.read() as connection:
        owned = sorted(objects.owned_by(connection, owner.uid), key=_order)
        found = nodes(connection, owned, now=now, progress={row.key: row for row in rows})
    return [*found]


def _has_stages(owner: ObjectRecord) -> bool:
    return owner.key.kind == "Experiment" and "matrix" not in owner.spec


def _order(record: ObjectRecord) -> tuple[int, str]:
    return KINDS.index(record.key.kind), record.key.name


def _roots(
    connection: Connection, start: tuple[str, str, str] | None, part: str, rows_max: int
) -> tuple[list[ObjectRecord], bool]:
    """Return at most ``rows_max`` objects behind a place, kind by kind, and whether more follow."""
    kind, *place = start or (KINDS[0], "", "")
    after = (place[0], place[1])
    found: list[ObjectRecord] = []
    for one in KINDS[KINDS.index(kind) :]:
        left = rows_max + 1 - len(found)
        found += roots.roots(connection, one, after=after, name_part=part, rows_max=left)
        after = ("", "")
        if len(found) > rows_max:
            return found[:rows_max], True
    return found, False


def _token(place: list[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _start(token: str) -> tuple[str, str, str] | None:
    if not token:
        return None
    try:
        kind, namespace, name = json.loads(base64.urlsafe_b64decode(token.encode()))
        KINDS.index(kind)
        return str(kind), str(namespace), str(name)
    except (ValueError, TypeError):
        raise Refused(400, "continue: not a token that this server gave") from None


def as_object(record: ObjectRecord) -> JsonObject:
    """Return the metadata that the page shows of an object."""
    return {
        "generation": record.generation,
        "observedGeneration": record.status.observed_generation,
        "labels": {**record.labels},
        "annotations": {**record.annotations},
    }
