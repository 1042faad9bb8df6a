"""The address of a state on a PostgreSQL server: a URL, and the schema that holds the tables."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from loopscope.state.failures import TerminalFailure

DRIVER = "postgresql+psycopg"
SHOWN_CHARACTERS_MAX = 300
SCHEMA_DEFAULT = "loopscope"
_SECRETS = ("password", "sslpassword")
"""Words behind the ``?`` that no message shows."""
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}")
"""What needs no quotes, and leaves room for the names of what is set aside."""


@dataclass(frozen=True)
class Address:
    """Where the tables are. ``url`` may hold a password; ``str`` never shows it."""

    url: URL
    schema: str

    def __str__(self) -> str:
        """Return the URL for messages."""
        hidden = {word: "***" for word in self.url.query if word in _SECRETS}
        shown = self.url.update_query_dict(hidden).render_as_string(hide_password=True)
        return shown if self.schema == SCHEMA_DEFAULT else f"{shown} (schema {self.schema})"

    @property
    def conninfo(self) -> str:
        """What libpq reads, for connections past SQLAlchemy."""
        return self.url.set(drivername="postgresql").render_as_string(hide_password=False)


def address_of(written: str) -> Address:
    """Read ``postgresql+psycopg://user@host/database``, with ``?schema=name`` for another schema.

    What else stands behind the ``?`` goes to libpq. Raises TerminalFailure.
    """
    try:
        url = make_url(written)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise _refused(written, "is no URL") from None
    if url.drivername not in (DRIVER, "postgresql"):
        raise _refused(written, f"names {url.drivername}, of which Loopscope knows nothing")
    if not url.database:
        raise _refused(written, "names no database")
    if url.port is not None and not 1 <= url.port <= 65535:
        raise _refused(written, f"has the port {url.port}")
    schema = url.query.get("schema", SCHEMA_DEFAULT)
    if not isinstance(schema, str) or not _SCHEMA_NAME.fullmatch(schema):
        raise _refused(written, "has a schema that is not a word of small letters, digits and _")
    found = Address(url.set(drivername=DRIVER).difference_update_query(["schema"]), schema)
    if "options" in url.query:
        raise _refused(written, "sets options, which Loopscope sets itself")
    try:
        conninfo_to_dict(found.conninfo)
    except psycopg.ProgrammingError:
        raise _refused(written, "has a word behind the ? that libpq does not know") from None
    return found


def _refused(written: str, why: str) -> TerminalFailure:
    shown = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", written, flags=re.DOTALL)
    shown = re.sub(rf"\b({'|'.join(_SECRETS)})=[^&]*", r"\1=***", shown)[:SHOWN_CHARACTERS_MAX]
    return TerminalFailure(
        "InvalidDatabase",
        f"{shown} {why}; expected {DRIVER}://user@host/database, with ?schema=name for a schema "
        f"other than {SCHEMA_DEFAULT}",
    )
