"""The surroundings of every panel: the state folder, the settings, its watches, a clock."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request

from loopscope.controller.config import settings_beside
from loopscope.controller.settings import Settings
from loopscope.reports.text_table import TextTable
from loopscope.server.answers import Refused
from loopscope.server.guard import body_of
from loopscope.server.settings import ServerSettings
from loopscope.server.watching import Watches
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import SHORT_BY_KIND
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord

PREFIX = "/page"
PAGE_HEADER = "x-loopscope-page"
"""What only a script of our own page can send: no form can, and other sites may not ask."""
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")


@dataclass(frozen=True)
class Site:
    """One state folder as the page shows it."""

    state: StateFolder
    settings: ServerSettings
    token: str
    now: Callable[[], float]
    watches: Watches
    scratch: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="loopscope-page-")
    )
    """What was rendered lies there until the server ends."""

    @property
    def scratch_folder(self) -> Path:
        """Where rendered files lie."""
        return Path(self.scratch.name)

    @property
    def queue_settings(self) -> Settings:
        """The limits of the queue where no controller says its own."""
        return Settings(**settings_beside(self.state.path))

    def capability(self, *words: str) -> str:
        """Return the part of an address that lets a frame, which sends no token, read one thing."""
        what = "\0".join(words).encode()
        return hmac.new(self.token.encode(), what, hashlib.sha256).hexdigest()[:32]

    def allows(self, given: str, *words: str) -> bool:
        """Whether a part of an address is the capability of these words."""
        return hmac.compare_digest(given.encode(), self.capability(*words).encode())


def key_of(request: Request) -> Key:
    """Return the object that a path names by kind, namespace and name; raises Refused."""
    words = request.path_params
    return named_key(words["kind"], words["namespace"], words["name"])


def named_key(kind: str, namespace: str, name: str) -> Key:
    """Return a key of words from outside; raises Refused."""
    if kind not in SHORT_BY_KIND or not (_NAME.fullmatch(namespace) and _NAME.fullmatch(name)):
        raise Refused(404, "the server could not find the requested resource")
    return Key(kind, namespace, name)


def found(connection: Connection, key: Key) -> ObjectRecord:
    """Return an object; raises Refused."""
    record = objects.get(connection, key)
    if record is None:
        raise Refused(404, f"{key} not found")
    return record


async def asked_of_page(request: Request, site: Site) -> JsonObject:
    """Return the JSON object that our page sent to be acted upon; raises Refused."""
    if not site.settings.writable:
        raise Refused(405, "this server only reads; start it with `loopscope serve --write`")
    if request.headers.get(PAGE_HEADER) != "1":
        raise Refused(403, f"{PAGE_HEADER} is missing: only the page of this server may ask that")
    content = await body_of(request, site.settings)
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "the body is not a JSON object")
    return body


def as_table(table: TextTable, keys: list[Key | None] | None = None) -> JsonObject:
    """Return a table of texts as JSON, with the object that each row is about."""
    rows: list[Json] = [[*row] for row in table.rows]
    columns: list[Json] = [*table.columns]
    about: list[Json] = [key_json(key) if key is not None else None for key in keys or []]
    return {"columns": columns, "rows": rows, "objects": about}


def key_json(key: Key) -> JsonObject:
    """Return a key as JSON."""
    return {"kind": key.kind, "namespace": key.namespace, "name": key.name, "words": str(key)}
