"""Identities of processes that a recycled process id does not share, and their liveness."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loopscope.state.clock_reading import boot_id

_STATE, _START_TICKS = 0, 19
"""The fields of /proc/<pid>/stat with a process' state and its start, counted after its name."""


def process_name(pid: int) -> str:
    """Return ``<pid>@<start>``: a name that a recycled pid does not share.

    The start is counted from that of the machine: as a date, it would change when the clock is
    set.
    """
    fields = _stat(pid)
    if fields is not None:
        return _name(pid, fields)
    import psutil  # late: short commands need not wait for it where there is a /proc

    try:
        return f"{pid}@{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return f"{pid}@gone"


def process_exists(name: str) -> bool:
    """Whether the process of this name still runs."""
    pid = int(name.split("@")[0]) if name.split("@")[0].isdigit() else -1
    if pid < 0:
        return False
    fields = _stat(pid)
    if fields is not None:
        return fields[_STATE] != b"Z" and _name(pid, fields) == name
    import psutil

    try:
        zombie = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
    return not zombie and process_name(pid) == name


def _stat(pid: int) -> list[bytes] | None:
    """Return the fields behind the name; None if it is gone, or on a system without /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields if len(fields) > _START_TICKS else None


def _name(pid: int, fields: list[bytes]) -> str:
    return f"{pid}@{boot_id()[:8]}-{int(fields[_START_TICKS])}"


@dataclass(frozen=True)
class ProcessUse:
    """What a process takes: resident memory now, and processor time since it started."""

    memory_bytes: int
    processor_seconds: float


def process_use(name: str) -> ProcessUse | None:
    """Return what the process of this name takes; None when that cannot be known here."""
    if not process_exists(name):
        return None
    import psutil

    try:
        process = psutil.Process(int(name.split("@")[0]))
        spent = process.cpu_times()
        return ProcessUse(int(process.memory_info().rss), float(spent.user + spent.system))
    except psutil.Error:
        return None
