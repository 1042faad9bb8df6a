"""Digest of every row of a state, the same whichever database holds it."""

from __future__ import annotations

import hashlib
import json

from sqlalchemy import Table

from loopscope.state.db import tables
from loopscope.state.db.connection import Connection
from loopscope.state.db.database import Database

ROWS_AT_ONCE = 1000


def rows_digest(database: Database) -> str:
    """Return a digest of all rows of all tables, whatever order a database has them in."""
    found = hashlib.sha256()
    with database.read() as connection:
        for table in tables.metadata.sorted_tables:
            found.update(f"{table.name} {_digest_of(connection, table):x}\n".encode())
    return found.hexdigest()


def _digest_of(connection: Connection, table: Table) -> int:
    """Return the sum of the hashes of the rows of a table, so that no sorting is needed."""
    total = 0
    rows = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(table.select())
    for row in rows.mappings():
        text = json.dumps(dict(row), sort_keys=True, default=str)
        total += int.from_bytes(hashlib.sha256(text.encode()).digest())
    return total
