"""Two S3 servers that share no code, on loopback; each ends with the process.

localbucket keeps objects as files, so that a kill loses nothing; moto keeps them in memory, and
knows what localbucket leaves out (If-Match above all). Neither looks at keys or checks a hash.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Kind = Literal["localbucket", "moto"]
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testtest"}
MOTO = Path(__file__).parents[1] / "build/moto/bin/moto_server"
"""Made by ``make test-cluster``: it needs an older python-dateutil than Loopscope's pins."""


def has_server(kind: Kind) -> bool:
    """Whether a server is installed."""
    if kind == "moto":
        return _moto() is not None
    return importlib.util.find_spec("localbucket") is not None


class S3Server:
    """A server with an empty data folder, reached by ``endpoint``."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.home = Path(tempfile.mkdtemp(prefix="s3-", dir="/tmp"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._buckets = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.home / "log"

    def start(self) -> None:
        """Start, and wait until it answers."""
        (self.home / "data").mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_the_parent,  # noqa: PLW1509 (before any thread)
            )
        while True:
            try:
                urllib.request.urlopen(self.endpoint, timeout=5).close()
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                if self._process.poll() is not None:
                    raise RuntimeError(self.log.read_text()) from None
                time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it and remove its data."""
        self.kill()
        shutil.rmtree(self.home)

    def new_bucket(self) -> str:
        """Make an empty bucket; return its name."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        made = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        urllib.request.urlopen(made, timeout=30).close()
        return name

    def requests(self, method: str) -> list[str]:
        """Return the paths that were asked for with a method, as its log has them."""
        return re.findall(rf'"{method} ([^ ?]+)[^"]* HTTP', self.log.read_text())

    def _command(self) -> list[str]:
        if self.kind == "moto":
            return [str(_moto()), "-H", "127.0.0.1", "-p", str(self.port)]
        data, port = str(self.home / "data"), str(self.port)
        return [sys.executable, "-m", "localbucket", data, "--port", port]


@contextmanager
def running_server(kind: Kind) -> Iterator[S3Server]:
    """Start a server for the time of the context."""
    server = S3Server(kind)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def free_port() -> int:
    """Return a port of loopback that nobody uses now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _moto() -> Path | None:
    given = os.environ.get("LOOPSCOPE_MOTO_SERVER")
    found = Path(given) if given else MOTO
    return found if found.exists() else None


def _die_with_the_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
