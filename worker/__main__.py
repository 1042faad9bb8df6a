"""``python -m loopscope.worker``: reads jobs from standard input until it closes.

One JSON line per job comes in (``loopscope.state.orders``); ``{"began": id}`` goes out when
everything is loaded that a stage needs, ``{"ended": id}`` when the job ended. A process that holds
other code than the order names gives the job back and ends without a word. When the pipe
closes, the controller is gone: the shard under way is finished if that is quick, the job is given
back, and the process has exited within the grace period. A guardian process sees to that.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

from loopscope.state.orders import EXIT_OUT_OF_TIME
from loopscope.state.source_code import source_at_start
from loopscope.worker.guardian import start_guardian
from loopscope.worker.import_guard import ImportGuard
from loopscope.worker.stop import GUARDIAN_SECONDS, StopRequest, on_terminate

Orders = queue.Queue[str | None]


def main() -> None:
    """Run jobs until standard input closes."""
    ImportGuard(source_at_start()).install()
    parser = argparse.ArgumentParser(prog="python -m loopscope.worker")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lease-seconds", type=float, default=30.0)
    parser.add_argument("--progress-timeout-seconds", type=float, default=1800.0)
    parser.add_argument("--seconds-left", type=float, default=math.inf)
    arguments = parser.parse_args()
    start_guardian(GUARDIAN_SECONDS)
    answers = _take_standard_output()
    orders: Orders = queue.Queue()
    stop = StopRequest()
    stop.ends_at = time.monotonic() + arguments.seconds_left

    def begin_stop() -> None:
        stop.begin()
        orders.put(None)

    on_terminate(begin_stop)
    threading.Thread(target=_read_orders, args=(orders, begin_stop), daemon=True).start()
    try:
        _work(arguments, orders, answers, stop)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    # the thread that reads standard input would abort a normal exit
    os._exit(EXIT_OUT_OF_TIME if stop.out_of_time else 0)


def _work(
    arguments: argparse.Namespace, orders: Orders, answers: IO[str], stop: StopRequest
) -> None:
    import structlog  # late, as are the others: the orders' thread must run first

    from loopscope.state.orders import Order
    from loopscope.worker.serving import Post, serve

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    post = Post(
        arguments.state,
        arguments.device,
        arguments.lease_seconds,
        arguments.progress_timeout_seconds,
    )
    lines = iter(orders.get, None)
    serve(post, map(Order.from_line, lines), partial(_answer, answers), stop)


def _answer(answers: IO[str], word: str, job: int) -> None:
    with contextlib.suppress(OSError):  # the controller stopped reading; its orders will end, too
        answers.write(json.dumps({word: job}) + "\n")
        answers.flush()


class _Log(io.TextIOWrapper):
    """Standard error, whose reader may be gone; that must not fail a job."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)


def _take_standard_output() -> IO[str]:
    """Return the way back to the controller; whatever else prints, prints into the log."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    log = _Log(io.FileIO(2, "w", closefd=False), errors="replace", write_through=True)
    sys.stdout = sys.stderr = log
    return answers


def _read_orders(orders: Orders, begin_stop: Callable[[], None]) -> None:
    for line in sys.stdin:
        orders.put(line)
    begin_stop()


if __name__ == "__main__":
    main()
