"""Workers as any process sees them: whether one lives, and where its log lies.

Commands that look have no executor to ask, and a controller that comes after another one did not
start its workers. A worker's name identifies it; about one that is not a process of this machine,
nothing is known here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from loopscope.state.processes import process_exists
from loopscope.state.records import JobHead

WORKER_GONE = "its worker is gone; the next controller starts it again"


def worker_lives(name: str) -> bool | None:
    """Whether the worker of this name lives; None when that cannot be known here."""
    return process_exists(name) if name[:1].isdigit() else None


def without_lost_worker(job: JobHead) -> JobHead:
    """Return the job; one whose worker is gone counts as waiting, whatever state its row holds."""
    if job.state != "running" or worker_lives(job.worker or "") is not False:
        return job
    return replace(job, state="pending", reason="WorkerLost", message=WORKER_GONE)


def log_path(folder: Path, slot: int) -> Path:
    """Return where the workers of a slot log, one after the other."""
    return folder / f"worker-{slot}.log"


def log_paths(folder: Path) -> list[Path]:
    """Return the logs of all slots that there are."""
    return sorted(folder.glob("worker-*.log"))
