"""The log file of a worker: read from its pipe without end, kept within a stated size."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import IO

from loopscope.state.log_files import append

CHUNK_BYTES = 64 * 1024
LAST_LINE_CHARACTERS_MAX = 200
DRAIN_SECONDS = 1.0


class WorkerLog:
    """Copies a worker's output into its log, in a thread of its own."""

    def __init__(self, path: Path, source: IO[bytes]) -> None:
        self._path = path
        self._source = source
        self._tail = b""
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def last_line(self) -> str:
        """Return the last words of a worker that has ended, on one line; empty if it was silent."""
        self._thread.join(DRAIN_SECONDS)
        lines = self._tail.decode(errors="replace").split("\n")
        texts = [line.strip() for line in lines if line.strip()]
        return texts[-1][-LAST_LINE_CHARACTERS_MAX:] if texts else ""

    def _copy(self) -> None:
        with self._source:
            while chunk := os.read(self._source.fileno(), CHUNK_BYTES):
                self._tail = (self._tail + chunk)[-4 * LAST_LINE_CHARACTERS_MAX :]
                with contextlib.suppress(OSError):  # a full disk: the worker must not wait for us
                    append(self._path, chunk)


def obituary(status: int, log: WorkerLog) -> str:
    """Return how a process ended, as the end of a sentence that starts with "the worker"."""
    if status == -signal.SIGKILL:
        return "was killed by signal 9, probably by the system because memory ran out"
    if status < 0:
        return f"was ended by signal {-status}"
    last_line = log.last_line()
    last_words = f"; its last words: {last_line}" if last_line else ""
    return f"exited with status {status}{last_words}"
