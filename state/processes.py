"""Identities of processes that a recycled process id does not share, and their liveness."""

from __future__ import annotations

from pathlib import Path

import psutil

from loopscope.state.clock_reading import boot_id

_START_TICKS = 19
"""The field of /proc/<pid>/stat with the start of the process, counted after its name."""


def process_name(pid: int) -> str:
    """Return ``<pid>@<start>``: a name that a recycled pid does not share.

    The start is counted from that of the machine: as a date, it would change when the clock is
    set.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return f"{pid}@{boot_id()[:8]}-{int(after_name[_START_TICKS])}"
    except (OSError, IndexError):  # gone, or a system without /proc
        pass
    try:
        return f"{pid}@{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return f"{pid}@gone"


def process_exists(name: str) -> bool:
    """Whether the process of this name still runs."""
    pid = int(name.split("@")[0]) if name.split("@")[0].isdigit() else -1
    if pid < 0 or not psutil.pid_exists(pid):
        return False
    try:
        zombie = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
    return not zombie and process_name(pid) == name
