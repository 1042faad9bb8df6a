"""The SQLite database: WAL, immediate write transactions, forward migrations."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DatabaseError

from loopscope.specs.legible import encodable, is_encodable
from loopscope.state import failpoints
from loopscope.state.db.dialect.sqlite.file_systems import refuse_network_file_system
from loopscope.state.db.dialect.sqlite.open_files import OpenFiles
from loopscope.state.failures import Failure, TerminalFailure, TransientFailure
from loopscope.state.files import disk_full_words, durable_replace, file_sha256, free_bytes

HEAD_REVISION = "0006"
MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_SECONDS = 60.0
WAL_TRIES_MAX = 20
CHECKPOINT_PAGES = 1000
"""A commit that leaves more pages than this in the WAL moves them into the database."""
WAL_BYTES_KEPT = 8 * 1024 * 1024
"""A WAL that a long read made bigger is cut to this size once the read is over."""


class Database:
    """One SQLite file. ``read`` sees a consistent snapshot; ``write`` holds the write lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = _engine(path)
        self._files = OpenFiles(path)
        self._marker: sqlite3.Connection | None = None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read transaction; whoever writes in it gets an error.

        A read that turned into a write would fail whenever somebody else wrote meanwhile.
        """
        with _in_plain_words(self.path), self._engine.connect() as connection:
            raw = _raw(connection)
            raw.execute("PRAGMA query_only=ON")
            connection.exec_driver_sql("BEGIN")
            raw.execute("PRAGMA schema_version").fetchall()  # begins to read: files stay now
            self._files.check()
            yield connection
            connection.rollback()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a write transaction; commits at the end, rolls back on any exception.

        Raises TransientFailure when others hold the lock for BUSY_TIMEOUT_SECONDS.
        """
        with _in_plain_words(self.path), self._engine.connect() as connection:
            failpoints.reach("transaction-begin")
            _raw(connection).execute("PRAGMA query_only=OFF")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                self._files.check()
                yield connection
                failpoints.reach("transaction-commit")
                connection.commit()
            except BaseException:
                # also after a commit that failed: closing alone would put the connection back
                # into the pool with its transaction open, and the write lock held for ever
                connection.rollback()
                raise
        failpoints.reach("transaction-committed")

    def marker(self) -> int:
        """Return a number that is another one after each commit, whoever committed."""
        with _in_plain_words(self.path):
            if self._marker is None:
                self._marker = sqlite3.connect(
                    self.path, timeout=BUSY_TIMEOUT_SECONDS, check_same_thread=False
                )
                configure(self._marker, self.path)
            self._files.check()
            return int(self._marker.execute("PRAGMA data_version").fetchone()[0])

    def migrate(self) -> None:
        """Bring the schema to this version. Refuses a database of a newer Loopscope.

        All or nothing, and once: of several processes the first migrates under the write lock,
        the others wait for it and find nothing to do.
        """
        with _in_plain_words(self.path), self._engine.connect() as connection:
            if schema_revision(connection) == HEAD_REVISION:
                return
        with self.write() as connection:
            current = schema_revision(connection)
            if current == HEAD_REVISION:
                return
            if current is not None and current > HEAD_REVISION:
                raise TerminalFailure(
                    "NewerDatabase",
                    f"{self.path} has schema {current}, this Loopscope knows {HEAD_REVISION}; "
                    "upgrade",
                )
            if current is not None:
                self._back_up(current)
            _upgrade(connection)

    def close(self) -> None:
        """Close all connections."""
        if self._marker is not None:
            self._marker.close()
            self._marker = None
        self._engine.dispose()
        self._files.forget()

    def _back_up(self, revision: str) -> None:
        """Copy the database beside itself, whole and durable.

        The name holds the content's hash: a copy never replaces a different one, and a migration
        that fails again and again leaves one copy.
        """
        copy = self.path.with_name(f"{self.path.name}.copying")
        copy.unlink(missing_ok=True)
        try:
            _copy_whole(self.path, copy)
            content = file_sha256(copy)[:12]
            name = f"{self.path.name}.before-{HEAD_REVISION}-from-{revision}-{content}"
            durable_replace(copy, self.path.with_name(name))
        finally:
            copy.unlink(missing_ok=True)


def _raw(connection: Connection) -> sqlite3.Cursor:
    """Return a cursor past SQLAlchemy, which takes twenty times as long over a pragma."""
    return cast("sqlite3.Cursor", connection.connection.cursor())


def open_database(path: Path) -> Database:
    """Open (creating it with its folder, private to the user) and migrate the database."""
    refuse_network_file_system(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(path)
    try:
        database.migrate()
    except BaseException:
        database.close()
        raise
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
    except (DatabaseError, sqlite3.DatabaseError) as error:
        said = error.orig if isinstance(error, DatabaseError) else error
        failure = _failure(path, str(said))
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
            f"another process held {path} for more than {BUSY_TIMEOUT_SECONDS:.0f} s ({said}); "
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
        URL.create("sqlite", database=str(path)),  # a path may hold any sign, also `?`
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        json_serializer=_json_text,
    )
    event.listen(engine, "before_cursor_execute", _only_what_can_be_stored, retval=True)

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: Any) -> None:
        configure(connection, path)

    return engine


def _only_what_can_be_stored(
    _connection: Connection,
    _cursor: Any,
    statement: str,
    parameters: Any,
    _context: Any,
    many: bool,
) -> tuple[str, Any]:
    """Write out bytes that are no UTF-8 in whatever is about to be stored or looked for.

    A path or a message of the system may hold them, SQLite refuses them, and JSON would give them
    to whoever reads it. The one place that everything passes.
    """
    rows = parameters if many else [parameters]
    values = (value for row in rows for value in (row.values() if _is_named(row) else row))
    if all(is_encodable(value) for value in values if isinstance(value, str)):
        return statement, parameters
    clean = [_stored_row(row) for row in rows]
    return statement, clean if many else clean[0]


def _is_named(row: Any) -> bool:
    return isinstance(row, dict)


def _stored_row(row: Any) -> Any:
    if _is_named(row):
        return {name: _stored(value) for name, value in row.items()}
    return tuple(_stored(value) for value in row)


def _stored(value: Any) -> Any:
    return encodable(value) if isinstance(value, str) else value


def _json_text(value: Any) -> str:
    """Return JSON of which every string can be written as UTF-8 once it is read again."""
    text = json.dumps(value)
    if "\\ud" not in text:  # else half a pair, or a whole one: an emoji
        return text
    plain = json.dumps(value, ensure_ascii=False)
    return text if is_encodable(plain) else encodable(plain, backslash="\\\\")


def configure(connection: sqlite3.Connection, path: Path) -> None:
    """Set what every connection must have. Raises TerminalFailure when WAL is not to be had."""
    connection.isolation_level = None  # transactions are begun explicitly above
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


def schema_revision(connection: Connection) -> str | None:
    """Return the version of the schema; None where there are no tables of Loopscope."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.execute(text("select version_num from alembic_version")).first()
    return str(row[0]) if row else None


def _copy_whole(path: Path, copy: Path) -> None:
    """Write what the last commit left, wherever it lies, into one file. Refuses damaged ones."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")  # no WAL beside it
        (found,) = target.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(f"malformed: {found}")


def _upgrade(connection: Connection) -> None:
    from alembic import command  # imported late: a second of start-up that most commands save
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD_REVISION)
