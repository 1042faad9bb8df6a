"""SQLite files where nothing is written: as they lie there, or as a copy."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import weakref
from functools import cached_property
from pathlib import Path

from sqlalchemy import Connection, Engine

from loopscope.state.db.dialect.sqlite.connections import engine_that_connects_anew
from loopscope.state.db.dialect.sqlite.file import SqliteFile
from loopscope.state.db.dialect.sqlite.file_systems import refuse_network_file_system
from loopscope.state.db.dialect.sqlite.whole_files import log_of


class SqliteAsItLies(SqliteFile):
    """A file that is neither migrated nor created; a write transaction fails.

    While it is in use, or after a crash, SQLite reads through its ``-wal`` and may renew the
    ``-shm`` beside it, which is only an index. Else the file is read as it lies there. Each read
    opens it anew, because it may be in use by then.
    """

    @cached_property
    def engine(self) -> Engine:
        """Where connections come from."""
        file = self.path.resolve().as_uri()

        def connect() -> sqlite3.Connection:
            uri = f"{file}?mode=ro{'' if log_of(self.path).exists() else '&immutable=1'}"
            return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)

        return engine_that_connects_anew(connect)

    def begin_read(self, connection: Connection) -> None:
        """Begin a read transaction on the files that lie there now."""
        self._files.forget()  # between two reads its last user may close it, which removes the log
        super().begin_read(connection)


class SqliteCopy(SqliteFile):
    """A copy of a file, made where one may write; it goes with the process. Raises OSError."""

    def __init__(self, path: Path) -> None:
        folder = Path(tempfile.mkdtemp(prefix="loopscope-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        for file in (path, log_of(path)):
            if file.exists():
                shutil.copyfile(file, folder / file.name)
        super().__init__(folder / path.name)


def refuse_where_others_may_write(path: Path) -> None:
    """Raise TerminalFailure when a file on a network file system is seen to be in use."""
    if log_of(path).exists():
        refuse_network_file_system(path)
