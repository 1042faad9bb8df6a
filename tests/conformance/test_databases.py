"""Every kind of database passes the suite of its seam: SQLite, the only one so far."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, text

from loopscope.state.db.database import Database
from loopscope.state.db.dialect.sqlite.file import SqliteFile
from loopscope.state.db.dialect.sqlite.reading import SqliteAsItLies
from tests.conformance.database import DatabaseConformance


class TestSqlite(DatabaseConformance):
    def dialect(self, place: Path, patience_seconds: float | None = None) -> SqliteFile:
        return SqliteFile(place / "state.db", patience_seconds=patience_seconds)

    def fill_up(self, connection: Connection) -> None:
        connection.execute(text("pragma max_page_count=1"))

    def backups(self, place: Path) -> list[Database]:
        copies = sorted(place.glob("state.db.before-*"))
        return [Database(SqliteAsItLies(copy)) for copy in copies]
