"""A thread that watches folders.

A watch that fails is taken up again, and then everything is looked at: what happened meanwhile was
not seen. Folders are watched, never files: one that is replaced by a rename is another file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import structlog
import watchfiles

log = structlog.get_logger("folder")

DEBOUNCE_MILLISECONDS = 50
STEP_MILLISECONDS = 10
AGAIN_SECONDS = 1.0


class FolderWatch:
    """Calls ``notice`` with the paths that changed below the folders that are watched now.

    With None when anything may have changed: after a fault, and when the folders become others.
    """

    def __init__(
        self, notice: Callable[[set[Path] | None], None], ignored: Path, *, recursive: bool
    ) -> None:
        self._notice = notice
        self._ignored = ignored
        self._recursive = recursive
        self._folders: frozenset[Path] = frozenset()
        self._interrupt = threading.Event()
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin watching."""
        threading.Thread(target=self._run, daemon=True, name="watch").start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._interrupt.set()

    def watch(self, folders: set[Path]) -> None:
        """Watch these folders from now on, and no others."""
        if frozenset(folders) != self._folders:
            self._folders = frozenset(folders)
            self._interrupt.set()

    def _run(self) -> None:
        logged = ""
        while not self._stop.is_set():
            self._interrupt.clear()  # before the folders are read: a later set is then seen
            folders: list[Path] = []
            try:
                folders += (folder for folder in self._folders if folder.is_dir())
                self._watch(folders)
            except Exception as fault:
                if str(fault) != logged:  # an entry that cannot be watched stays: once is enough
                    logged = str(fault)
                    log.error("watching failed; looking every second instead", fault=logged)
                self._stop.wait(AGAIN_SECONDS)
            if not self._stop.is_set() and folders:
                self._notice(None)

    def _watch(self, folders: list[Path]) -> None:
        if not folders:
            self._interrupt.wait(AGAIN_SECONDS)
            return
        for changes in watchfiles.watch(
            *folders,
            debounce=DEBOUNCE_MILLISECONDS,
            step=STEP_MILLISECONDS,
            stop_event=self._interrupt,
            watch_filter=self._concerns_specs,
            recursive=self._recursive,
        ):
            self._notice({Path(path) for _, path in changes})

    def _concerns_specs(self, _change: watchfiles.Change, path: str) -> bool:
        inside_state = Path(path).is_relative_to(self._ignored)
        return not inside_state and "/.git/" not in path and "/.venv/" not in path
