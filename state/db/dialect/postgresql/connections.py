"""Connections to a PostgreSQL server, in the schema of a state."""

from __future__ import annotations

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event

from loopscope.state.db.dialect.postgresql.address import Address
from loopscope.state.db.dialect.stored_text import (
    keep_to_utf8,
    strict_json_text,
    without_nul,
)

CONNECT_SECONDS = 10
"""How long one waits for a server that does not answer."""
STATEMENT_SECONDS = 300
"""A statement that takes longer is ended; the largest listing takes a second."""
CHANGED = "loopscope_changed"
"""The channel on which each commit is announced."""
WRITE_LOCK = "select pg_advisory_xact_lock(hashtext('loopscope'), hashtext(current_schema()))"
"""What every writer takes until its transaction ends."""
_COUNT_COMMIT = (
    "with moved as (update commit_marker set n = n + 1 "
    "where pg_current_xact_id_if_assigned() is not null returning n) "
    f"select pg_notify('{CHANGED}', current_schema() || ' ' || %s) from moved"
)


def engine_of(address: Address, patience_seconds: float, name: str) -> Engine:
    """Return an engine whose connections wait this long for another writer.

    Each commit that changed a row raises the marker and announces it, with the engine's name.
    """
    engine = create_engine(
        address.url,
        connect_args={
            "options": _options(address, patience_seconds),
            "connect_timeout": CONNECT_SECONDS,
        },
        json_serializer=strict_json_text,
        pool_pre_ping=True,  # a server that was started again closed them all
    )
    keep_to_utf8(engine)
    without_nul(engine)

    @event.listens_for(engine, "commit")
    def _count(connection: Connection) -> None:
        cursor = connection.connection.cursor()
        cursor.execute(_COUNT_COMMIT, (name,))
        cursor.close()

    return engine


def bare_connection(
    address: Address, patience_seconds: float
) -> psycopg.Connection[tuple[object, ...]]:
    """Return a connection past SQLAlchemy on which each statement is its own transaction."""
    options = _options(address, patience_seconds)
    return psycopg.connect(
        address.conninfo, autocommit=True, options=options, connect_timeout=CONNECT_SECONDS
    )


def _options(address: Address, patience_seconds: float) -> str:
    milliseconds = max(1, round(1000 * patience_seconds))
    return (
        f"-c search_path={address.schema} -c lock_timeout={milliseconds} "
        f"-c statement_timeout={1000 * STATEMENT_SECONDS}"
    )
