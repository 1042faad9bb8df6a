"""The SQLite database: WAL, immediate write transactions, forward migrations."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DatabaseError

from state import failpoints
from state.failures import TerminalFailure
from state.open_files import OpenFiles

HEAD_REVISION = "0001"
BUSY_TIMEOUT_SECONDS = 60
_NETWORK_FILE_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "fuse.sshfs",
    "ceph",
    "lustre",
}


class Database:
    """One SQLite file. ``read`` sees a consistent snapshot; ``write`` holds the write lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = _engine(path)
        self._files = OpenFiles(path)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read transaction."""
        with _in_plain_words(self.path), self._engine.connect() as connection:
            self._files.check()
            connection.exec_driver_sql("BEGIN")
            yield connection
            connection.rollback()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a write transaction; commits at the end, rolls back on any exception."""
        with _in_plain_words(self.path), self._engine.connect() as connection:
            self._files.check()
            failpoints.reach("transaction-begin")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
                failpoints.reach("transaction-commit")
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
        failpoints.reach("transaction-committed")

    def migrate(self) -> None:
        """Bring the schema to this version. Refuses a database of a newer Loopscope."""
        current = self._revision()
        if current == HEAD_REVISION:
            return
        if current is not None and current > HEAD_REVISION:
            raise TerminalFailure(
                "NewerDatabase",
                f"{self.path} has schema {current}, this Loopscope knows {HEAD_REVISION}; upgrade",
            )
        if current is not None:
            self._back_up(current)
        _upgrade(self._engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
        self._files.forget()

    def _revision(self) -> str | None:
        with self._engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            row = connection.execute(text("select version_num from alembic_version")).first()
            return str(row[0]) if row else None

    def _back_up(self, revision: str) -> None:
        target = self.path.with_name(f"{self.path.name}.before-{HEAD_REVISION}-from-{revision}")
        with sqlite3.connect(self.path) as source, sqlite3.connect(target) as copy:
            source.backup(copy)


def open_database(path: Path) -> Database:
    """Open (creating it with its folder, private to the user) and migrate the database."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _refuse_network_file_system(path.parent)
    database = Database(path)
    with _in_plain_words(path):
        database.migrate()
    return database


_DAMAGED = ("malformed", "not a database", "disk i/o error")
_NOT_WRITABLE = ("unable to open", "readonly", "read-only")


@contextmanager
def _in_plain_words(path: Path) -> Iterator[None]:
    """Turn SQLite's complaints about the file itself into failures that say what to do."""
    try:
        yield
    except DatabaseError as error:
        words = str(error.orig).lower()
        if any(word in words for word in _DAMAGED):
            raise TerminalFailure(
                "DatabaseDamaged",
                f"{path} is damaged ({error.orig}); run `loopscope rebuild SPECS`: it sets the "
                "database aside, applies the specs and takes over the artifacts without a run",
            ) from error
        if any(word in words for word in _NOT_WRITABLE):
            raise TerminalFailure(
                "StateNotWritable",
                f"{path} cannot be written ({error.orig}); give the folder write permission, or "
                "name another one with --state",
            ) from error
        raise


def _engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun explicitly above
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    return engine


def _upgrade(engine: Engine) -> None:
    from alembic import command  # imported late: a second of start-up that most commands save
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def _refuse_network_file_system(folder: Path) -> None:
    """SQLite's locks are not reliable on network file systems: refuse them by name."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return
    real = os.path.realpath(folder)
    best, kind = "", ""
    for line in mounts.read_text(errors="replace").splitlines():
        _, point, file_system, *_ = line.split(" ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, file_system
    if kind in _NETWORK_FILE_SYSTEMS:
        raise TerminalFailure(
            "NetworkFileSystem",
            f"{folder} is on {kind}, where SQLite locks are not safe; use --state on a local disk",
        )
