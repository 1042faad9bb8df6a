"""A SQLite file as the database of a state folder."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from sqlalchemy import Connection, Engine, text

from loopscope.state.db.dialect.contract import LeaderElsewhere
from loopscope.state.db.dialect.sqlite import whole_files
from loopscope.state.db.dialect.sqlite.connections import bare_connection, cursor_of, engine_of
from loopscope.state.db.dialect.sqlite.file_systems import refuse_network_file_system
from loopscope.state.db.dialect.sqlite.open_files import OpenFiles
from loopscope.state.db.dialect.sqlite.words import failure_of
from loopscope.state.failures import Failure
from loopscope.state.files import durable_replace

BUSY_TIMEOUT_SECONDS = 60.0
LEADER_LOCK = "controller.lock"


class SqliteFile:
    """One file with its log. A writer waits for others, ``BUSY_TIMEOUT_SECONDS`` by default."""

    kind: ClassVar[str] = "SQLite"
    begins_with_the_first_schema: ClassVar[bool] = True

    def __init__(self, path: Path, *, patience_seconds: float | None = None) -> None:
        self.path = path
        self._patience = BUSY_TIMEOUT_SECONDS if patience_seconds is None else patience_seconds
        self._files = OpenFiles(path)
        self._marker: sqlite3.Connection | None = None

    @property
    def place(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @cached_property
    def engine(self) -> Engine:
        """Where connections come from."""
        return engine_of(self.path, self._patience)

    def size_bytes(self) -> int | None:
        """Return the size of the file without its log; None when there is none."""
        try:
            return self.path.stat().st_size if self.path.exists() else None
        except FileNotFoundError:  # set aside in between
            return None

    def prepare(self) -> None:
        """Make folder and file, open to their user alone, unless the file system is none for it."""
        self.check_place()
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        whole_files.close_to_others(self.path)

    def begin_read(self, connection: Connection) -> None:
        """Begin a read transaction, in which a write is an error.

        A read that turned into a write would fail whenever another process wrote meanwhile.
        """
        cursor = cursor_of(connection)
        cursor.execute("PRAGMA query_only=ON")
        connection.exec_driver_sql("BEGIN")
        cursor.execute("PRAGMA schema_version").fetchall()  # begins to read: files stay now
        self._files.check()

    def begin_write(self, connection: Connection) -> None:
        """Take the write lock. Raises TerminalFailure when the files were replaced meanwhile."""
        cursor_of(connection).execute("PRAGMA query_only=OFF")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        self._files.check()

    def may_pause(self, connection: Connection) -> None:
        """Any writer may: the lock ends with its process alone."""

    @contextmanager
    def leading(self, process: str) -> Iterator[None]:
        """Hold a lock beside the file: one machine writes to it, and gives back what died held."""
        from filelock import FileLock, Timeout  # late: who only looks takes no lock

        lock = FileLock(self.path.with_name(LEADER_LOCK))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise LeaderElsewhere(f"another controller holds {lock.lock_file}") from None
        try:
            yield
        finally:
            lock.release()

    def is_led(self) -> bool:
        """Whether a process holds the lock."""
        try:
            with self.path.with_name(LEADER_LOCK).open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def marker(self) -> int:
        """Return a number that changes with each commit, of any process."""
        if self._marker is None:
            self._marker = bare_connection(self.path, self._patience)
        self._files.check()
        return int(self._marker.execute("PRAGMA data_version").fetchone()[0])

    def waking(self, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """A file tells nobody: asking costs microseconds."""
        return nullcontext()

    def failure(self, error: Exception) -> Failure | None:
        """Return what SQLite's words mean, or None when they are not about the file itself."""
        return failure_of(error, self.path, self._patience)

    def back_up(self, note: str) -> None:
        """Copy the database beside itself, whole and durable."""
        whole_files.back_up(self.path, note)

    def copy_to(self, path: Path) -> None:
        """Copy the database, with what its log holds, into one file."""
        whole_files.copy_whole(self.path, path)

    def check_place(self) -> None:
        """Raise TerminalFailure on a file system whose locks are not safe."""
        refuse_network_file_system(self.path)

    def restore_from(self, copy: Path) -> None:
        """Rename a copy to be the file."""
        durable_replace(copy, self.path)
        whole_files.close_to_others(self.path)

    def complaints(self, connection: Connection) -> list[str]:
        """Return what SQLite's examination finds."""
        found = connection.execute(text("pragma integrity_check")).scalars()
        return [str(complaint) for complaint in found if complaint != "ok"]

    def set_aside(self) -> str | None:
        """Rename the file with all that belongs to it; return its new place, if there was one."""
        return str(whole_files.set_aside(self.path)) if self.path.exists() else None

    def close(self) -> None:
        """Close all connections."""
        if self._marker is not None:
            self._marker.close()
            self._marker = None
        self.engine.dispose()
        self._files.forget()
