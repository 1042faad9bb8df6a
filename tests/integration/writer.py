"""One of several processes that raise the same numbers: ``writer.py DATABASE TIMES``.

A number in an object's status is read in one transaction and written in a second one, on
condition that nobody else wrote meanwhile; there a counter is raised with it, by reading and
writing it under the lock. Prints how often somebody else was quicker.
"""

import sys
from dataclasses import replace
from pathlib import Path

from sqlalchemy import select, update

from loopscope.specs.keys import Key
from loopscope.state.db import objects, tables
from loopscope.state.db.database import Database, open_database
from loopscope.state.db.dialect.sqlite.file import SqliteFile
from loopscope.state.db.objects import Conflict

KEY = Key("Capture", "default", "shared")
COUNTER = "fencing_token"


def raise_both(database: Database) -> None:
    """Raise the status's number and the counter by one. Raises Conflict."""
    with database.read() as connection:
        read = objects.get(connection, KEY)
    assert read is not None
    status = replace(read.status, summary={"count": read.status.summary.get("count", 0) + 1})
    this = tables.counters.c.name == COUNTER
    with database.write() as connection:
        value = connection.execute(select(tables.counters.c.value).where(this)).scalar_one()
        connection.execute(update(tables.counters).where(this).values(value=value + 1))
        objects.update_status(connection, read, status, None)


if __name__ == "__main__":
    database = open_database(SqliteFile(Path(sys.argv[1])))
    done = conflicts = 0
    while done < int(sys.argv[2]):
        try:
            raise_both(database)
            done += 1
        except Conflict:
            conflicts += 1
    sys.stdout.write(f"{conflicts}\n")
