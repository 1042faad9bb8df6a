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
from state.failures import Failure, TerminalFailure, TransientFailure
from state.files import disk_full_words, free_bytes
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
                connection.commit()
            except BaseException:
                # also after a commit that failed: closing alone would put the connection back
                # into the pool with its transaction open, and the write lock held for ever
                connection.rollback()
                raise
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


_FULL = ("disk is full",)
_BUSY = ("locked", "busy")
_UNREADABLE = ("disk i/o error", "unable to open")
_DAMAGED = ("malformed", "not a database")
_READ_ONLY = ("readonly", "read-only")
ROOM_BYTES = 64 * 1024
"""SQLite's shared index grows by 32 KiB: with less room than this, an I/O error is a full disk."""


@contextmanager
def _in_plain_words(path: Path) -> Iterator[None]:
    """Turn SQLite's complaints about the file itself into failures that say what to do."""
    try:
        yield
    except DatabaseError as error:
        failure = _failure(path, str(error.orig))
        if failure is None:
            raise
        raise failure from error


def _failure(path: Path, said: str) -> Failure | None:
    """Return what SQLite's words mean, or None when they are not about the file itself."""

    def any_of(words: tuple[str, ...]) -> bool:
        return any(word in said.lower() for word in words)

    if any_of(_FULL) or (any_of(_UNREADABLE) and _is_full(path)):
        return TransientFailure("DiskFull", f"{path} cannot be written: {disk_full_words(path)}")
    if any_of(_BUSY):
        return TransientFailure(
            "DatabaseBusy",
            f"{path} was held by another process for more than {BUSY_TIMEOUT_SECONDS} s ({said}); "
            "try again, and look for a process that hangs",
        )
    if any_of(_DAMAGED):
        return TerminalFailure(
            "DatabaseDamaged",
            f"{path} is damaged ({said}); run `loopscope rebuild SPECS`: it sets the database "
            "aside, applies the specs and takes over the artifacts without a run",
        )
    if any_of(_READ_ONLY) or (any_of(_UNREADABLE) and not _may_be_written(path)):
        return TerminalFailure(
            "StateNotWritable",
            f"{path} cannot be written ({said}); give the folder write permission, or "
            "name another one with --state",
        )
    if any_of(_UNREADABLE):
        return TransientFailure(
            "DatabaseUnreadable",
            f"the system refused to read or write {path} ({said}); look at the disk and at the "
            "number of open files, then try again",
        )
    return None


def _is_full(path: Path) -> bool:
    try:
        return free_bytes(path.parent) < ROOM_BYTES
    except OSError:
        return False


def _may_be_written(path: Path) -> bool:
    """Whether permissions allow it; then it is something that may pass, such as open files."""
    file_allows = os.access(path, os.W_OK) if path.exists() else path.parent.is_dir()
    return file_allows and os.access(path.parent, os.W_OK) and not path.is_dir()


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
