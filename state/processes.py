"""Who a process is, by a name that a recycled process id does not share, and whether it lives."""

from __future__ import annotations

from dataclasses import replace

import psutil

from loopscope.state.records import JobRecord

WORKER_GONE = "its worker is gone; the next controller starts it again"


def process_name(pid: int) -> str:
    """Return ``<pid>@<start time>``: a name that a recycled pid does not share."""
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


def without_lost_worker(job: JobRecord) -> JobRecord:
    """Return the job; one whose worker is gone waits, whatever its row still says.

    Of a worker whose name is not that of a process of this machine, nobody knows.
    """
    worker = job.worker or ""
    if job.state != "running" or not worker[:1].isdigit() or process_exists(worker):
        return job
    return replace(job, state="pending", reason="WorkerLost", message=WORKER_GONE)
