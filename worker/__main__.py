"""``python -m worker``: reads jobs from standard input until it closes.

One JSON line per job comes in (``{"job": id, "token": t}``), one goes out when it ended
(``{"ended": id}``). When the pipe closes, the controller is gone: the running job stops after
its batch, keeps the shards that it sealed, gives its lease back, and the process exits within
the grace period.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from state.folder import open_state
from worker.lease import Lease

if TYPE_CHECKING:
    from worker.runner import Runner

STOP_GRACE_SECONDS = 10.0


def main() -> None:
    """Run jobs until standard input closes."""
    parser = argparse.ArgumentParser(prog="python -m worker")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lease-seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    # results travel on the real standard output; libraries may print what they like
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr
    stop = threading.Event()
    orders: queue.Queue[dict[str, int] | None] = queue.Queue()
    threading.Thread(target=_read_orders, args=(orders, stop), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: _begin_stop(orders, stop))
    runner: Runner | None = None

    state = open_state(arguments.state)
    while (order := orders.get()) is not None:
        job, token = order["job"], order["token"]
        with Lease(state.database, job, token, arguments.lease_seconds, stop) as lease:
            # late and under the lease: importing torch can take longer than a lease lasts
            from worker.runner import Runner

            runner = runner or Runner.open(state, arguments.device)
            runner.run(job, token, lease)
        answers.write(json.dumps({"ended": job}) + "\n")
        answers.flush()
    os._exit(0)  # the thread that reads standard input would abort a normal exit


def _read_orders(orders: queue.Queue[dict[str, int] | None], stop: threading.Event) -> None:
    for line in sys.stdin:
        orders.put(json.loads(line))
    _begin_stop(orders, stop)


def _begin_stop(orders: queue.Queue[dict[str, int] | None], stop: threading.Event) -> None:
    stop.set()
    orders.put(None)
    last_resort = threading.Timer(STOP_GRACE_SECONDS, lambda: os._exit(75))
    last_resort.daemon = True
    last_resort.start()


if __name__ == "__main__":
    main()
