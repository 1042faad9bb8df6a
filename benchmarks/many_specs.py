"""A folder of many experiment specs and a state folder in which all of them are done.

One experiment (a tiny random model) is run; its objects are copied under the other names: equal
work is done once and shared anyway. That a resync writes nothing proves the copies.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tiny_experiment import make_experiment

TEMPLATE = "e00000"
REPOSITORY = Path(__file__).parents[1]


def write_specs(folder: Path, count: int) -> Path:
    """Write ``count`` equal experiments with what they name; return the folder of specs."""
    template = make_experiment(folder, TEMPLATE)
    text = template.read_text()
    for number in range(1, count):
        name = f"e{number:05d}"
        template.with_name(f"{name}.yaml").write_text(text.replace(TEMPLATE, name))
    return template.parent


def settle_all(state: Path, specs: Path) -> int:
    """Let everything that was applied be done; return the number of objects."""
    with closing(sqlite3.connect(state / "state.db")) as connection:
        others = connection.execute(
            "select name, uid from objects where name != ? order by name", (TEMPLATE,)
        ).fetchall()
        held_back = list(_rows(connection, "select * from objects where name != ?", TEMPLATE))
        connection.execute("delete from objects where name != ?", (TEMPLATE,))
        connection.commit()
    words = ["--state", str(state), "run", str(specs / f"{TEMPLATE}.yaml")]
    subprocess.run(
        [sys.executable, "-m", "loopscope", *words, "--root", str(specs.parent)],
        cwd=REPOSITORY, check=True, capture_output=True,
    )  # fmt: skip
    with closing(sqlite3.connect(state / "state.db")) as connection:
        family = list(_rows(connection, "select * from objects"))
        _insert(connection, held_back)
        (version,) = connection.execute(
            "select value from counters where name = 'resource_version'"
        ).fetchone()
        root = next(row for row in family if row["kind"] == "Experiment")
        children = [row for row in family if row["kind"] != "Experiment"]
        for name, uid in others:
            version += 1
            connection.execute(
                "update objects set status = ?, resource_version = ? where uid = ?",
                (root["status"].replace(TEMPLATE, name), version, uid),
            )
        copies = []
        for name, uid in others:
            for child in children:
                version += 1
                text = json.dumps(child).replace(TEMPLATE, name)
                copies.append(
                    {**json.loads(text), "uid": str(uuid.uuid4()), "owner_uid": uid,
                     "resource_version": version}
                )  # fmt: skip
        _insert(connection, copies)
        connection.execute(
            "update counters set value = ? where name = 'resource_version'", (version,)
        )
        connection.execute("delete from changes")
        connection.execute(
            "insert into changes values (?, 'MODIFIED', 'Experiment', 'default', ?)",
            (version, TEMPLATE),
        )
        connection.commit()
        return int(connection.execute("select count(*) from objects").fetchone()[0])


def _rows(connection: sqlite3.Connection, query: str, *values: Any) -> Iterator[dict[str, Any]]:
    cursor = connection.execute(query, values)
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True))


def _insert(connection: sqlite3.Connection, rows: list[dict[str, Any]]) -> None:
    if rows:
        names = list(rows[0])
        marks = ", ".join(f":{name}" for name in names)
        connection.executemany(f"insert into objects ({', '.join(names)}) values ({marks})", rows)
