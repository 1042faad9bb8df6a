"""Connections to a SQLite file: WAL, durable commits, patience with other writers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import cast

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from loopscope.state.db.dialect.stored_text import json_text, keep_to_utf8
from loopscope.state.failures import TerminalFailure

WAL_TRIES_MAX = 20
CHECKPOINT_PAGES = 1000
"""A commit that leaves more pages than this in the WAL moves them into the database."""
WAL_BYTES_KEPT = 8 * 1024 * 1024
"""A WAL that a long read made bigger is cut to this size once the read is over."""


def engine_of(path: Path, patience_seconds: float) -> Engine:
    """Return an engine whose connections wait this long for another writer."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),  # a path may hold any sign, also `?`
        connect_args={"timeout": patience_seconds, "check_same_thread": False},
        json_serializer=json_text,
    )
    keep_to_utf8(engine)

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        configure(connection, path)

    return engine


def engine_that_connects_anew(connect: Callable[[], sqlite3.Connection]) -> Engine:
    """Return an engine that keeps no connection and changes nothing in those that it gets."""
    return create_engine("sqlite://", creator=connect, poolclass=NullPool)


def bare_connection(path: Path, patience_seconds: float) -> sqlite3.Connection:
    """Return a connection past SQLAlchemy, for questions that are asked all the time."""
    connection = sqlite3.connect(path, timeout=patience_seconds, check_same_thread=False)
    configure(connection, path)
    return connection


def cursor_of(connection: Connection) -> sqlite3.Cursor:
    """Return a cursor past SQLAlchemy, which takes twenty times as long over a pragma."""
    return cast("sqlite3.Cursor", connection.connection.cursor())


def configure(connection: sqlite3.Connection, path: Path) -> None:
    """Set what every connection must have. Raises TerminalFailure when WAL is not to be had."""
    connection.isolation_level = None  # transactions are begun explicitly
    mode = _enter_wal(connection)
    if mode != "wal":
        raise TerminalFailure(
            "NoWriteAheadLog",
            f"{path} cannot be used with a write-ahead log (journal mode stays {mode}): its file "
            "system has no shared memory; use --state on a local disk",
        )
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES_KEPT}")


def _enter_wal(connection: sqlite3.Connection) -> str:
    """Return the journal mode after asking for WAL.

    Of processes that open a new file at once, one switches it and SQLite turns the others away
    without waiting: they wait here, for the write lock, and ask again.
    """
    for _ in range(WAL_TRIES_MAX):
        try:
            return str(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0])
        except sqlite3.OperationalError as refused:
            if "locked" not in str(refused):
                raise
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
    raise sqlite3.OperationalError("database is locked: it could not be switched to WAL")
