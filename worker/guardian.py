"""The guardian process: it ends a worker that outlives its controller.

``python guardian.py WORKER GRACE`` runs beside each worker, as its child, with the pipe of its
orders as standard input. It reads nothing from that pipe; when the other end closes, the
controller is gone, and the worker has the grace period to end by itself.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

POLL_SECONDS = 0.25


def start_guardian(grace_seconds: float) -> None:
    """Watch over this process from another one: a thread could not run while we are stopped."""
    subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(grace_seconds)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _watch(worker: int, grace_seconds: float) -> None:
    orders = select.poll()
    orders.register(0, 0)  # only hang-up and errors are reported
    while os.getppid() == worker and not orders.poll(POLL_SECONDS * 1000):
        pass
    deadline = time.monotonic() + grace_seconds
    while os.getppid() == worker and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    if os.getppid() == worker:  # not an orphan yet, so the number is still the worker's
        os.kill(worker, signal.SIGKILL)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), float(sys.argv[2]))
