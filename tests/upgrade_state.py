"""A finished state folder of an older Loopscope, with its model, dictionaries and texts.

``tests/data/upgrade/620b04e.tar.xz`` holds the tiny experiment of ``tests/tiny_experiment.py`` as
commit 620b04e finished it: capture revision 2, decomposition 2, mapping 3, steering 5, schema 0004.
To make such a file again, in a checkout of the old commit, with its own environment::

    python -c "from pathlib import Path; from tests.tiny_experiment import make_experiment; \\
        make_experiment(Path('/tmp/before-upgrade'))"
    python -m loopscope --state /tmp/before-upgrade/state run /tmp/before-upgrade/specs \\
        --root /tmp/before-upgrade

and then here ``python -m tests.upgrade_state /tmp/before-upgrade FILE``. The database is kept as
SQL text, in which the folder is a placeholder, so that the state can be unpacked anywhere.
"""

from __future__ import annotations

import sqlite3
import sys
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

BEFORE = Path(__file__).parent / "data" / "upgrade" / "620b04e.tar.xz"
PLACEHOLDER = "@FOLDER@"
INPUTS = ("model", "coarse", "fine", "texts", "specs")


def pack(folder: Path, archive: Path) -> None:
    """Write what ``unpack`` makes a folder of; logs and reports stay out."""
    with closing(sqlite3.connect(folder / "state" / "state.db")) as connection:
        dump = "\n".join(connection.iterdump())
    with tarfile.open(archive, "w:xz") as tar, tempfile.TemporaryDirectory() as place:
        sql = Path(place) / "state.sql"
        sql.write_text(dump.replace(str(folder), PLACEHOLDER), encoding="utf-8")
        tar.add(sql, "state.sql", filter=_nobodys)
        for name in (*INPUTS, "state/artifacts/store"):
            tar.add(folder / name, name, filter=_nobodys)


def unpack(folder: Path, archive: Path = BEFORE) -> Path:
    """Unpack everything into ``folder``; return its state folder."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    state = folder / "state"
    dump = (folder / "state.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(state / "state.db")) as connection:
        connection.executescript(dump.replace(PLACEHOLDER, str(folder)))
    return state


def _nobodys(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
