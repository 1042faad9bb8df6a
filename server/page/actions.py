"""Actions: what the commands of the same names do, in their words; only of a server that writes."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopscope.controller.maintenance import by_hand
from loopscope.server.answers import Refused, as_json
from loopscope.server.page.site import PREFIX, Site, asked_of_page, found, named_key
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import NODE_NAMES
from loopscope.state.db import pauses
from loopscope.state.db.connection import Connection

VERBS = ("pause", "resume", "retry", "cancel", "rerun")


def routes(site: Site) -> list[Route]:
    """Return the route of the actions."""

    async def act(request: Request) -> Response:
        body = await asked_of_page(request, site)
        lines: list[Json] = [*await run_in_threadpool(_act, site, body)]
        return as_json({"lines": lines})

    return [Route(f"{PREFIX}/actions", act, methods=["POST"])]


def _act(site: Site, body: JsonObject) -> list[str]:
    """Do what was asked in one transaction; raises Refused and Failure, then nothing was done."""
    verb, start = body.get("verb"), body.get("from") or NODE_NAMES[0]
    if verb not in VERBS:
        raise Refused(400, f"verb: {verb!r}: expected one of {', '.join(VERBS)}")
    if start not in NODE_NAMES:
        raise Refused(400, f"from: {start!r}: expected one of {', '.join(NODE_NAMES)}")
    words = [body.get(field) for field in ("kind", "namespace", "name")]
    with site.state.database.write() as connection:
        if words == [None, None, None] and verb in ("pause", "resume"):
            return _held(site, connection, verb, pauses.EVERYTHING)
        key = named_key(*(str(word) for word in words))
        return _done(site, connection, str(verb), key, str(start))


def _done(site: Site, connection: Connection, verb: str, key: Key, start: str) -> list[str]:
    record, now = found(connection, key), site.now()
    match verb:
        case "retry":
            return by_hand.retry(connection, by_hand.with_work(connection, [record]), now=now)
        case "cancel":
            return by_hand.cancel(connection, by_hand.with_work(connection, [record]), now=now)
        case "rerun":
            if key.kind != "Experiment":
                raise Refused(400, f"rerun takes an experiment, not {key}")
            artifacts = site.state.artifacts
            return by_hand.rerun(connection, artifacts, record, start, now=now)
        case _:
            return _held(site, connection, verb, pauses.scope_of(key))


def _held(site: Site, connection: Connection, verb: str, scope: str) -> list[str]:
    if verb == "pause":
        return by_hand.pause(connection, scope, now=site.now())
    return by_hand.resume(connection, scope)
