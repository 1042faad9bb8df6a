"""The work of a worker: one order after the other, whichever way they come to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loopscope.state.orders import Order
from loopscope.state.source_code import source_at_start
from loopscope.worker.stop import StopRequest

if TYPE_CHECKING:
    from loopscope.worker.runner import Runner


@dataclass(frozen=True)
class Post:
    """Where a worker works: its state folder and its device, and how long its leases last."""

    state: Path
    device: str = "cpu"
    lease_seconds: float = 30.0
    progress_timeout_seconds: float = 1800.0


def serve(
    post: Post, orders: Iterable[Order], answer: Callable[[str, int], None], stop: StopRequest
) -> None:
    """Do what is ordered until nothing more is, a stop is asked for, or this process must end.

    ``answer("began", job)`` reports that everything that a stage needs is loaded, and
    ``answer("ended", job)`` that the job ended and another one may come. A worker that ends,
    because it holds other code than was ordered or its memory ran out, answers nothing.
    """
    from loopscope.inputs.files import default_cache  # late: the orders' thread must run first
    from loopscope.state.folder import open_state
    from loopscope.state.source_code import CodeChanged
    from loopscope.worker.lease import Lease
    from loopscope.worker.refusing import check_code, give_back

    runner: Runner | None = None
    state = open_state(post.state)
    for order in orders:
        with Lease(
            state.database,
            order.job,
            order.token,
            post.lease_seconds,
            stop,
            progress_timeout_seconds=post.progress_timeout_seconds,
        ) as lease:
            try:
                check_code(order, source_at_start())
                # late and under the lease: importing torch can take longer than a lease lasts
                from loopscope.worker.machine_probe import keep_rates
                from loopscope.worker.runner import Runner

                runner = runner or Runner.open(state, post.device)
                keep_rates(default_cache(), post.device, time.time())
                answer("began", order.job)
                runner.run(order.job, order.token, lease)
            except CodeChanged as changed:
                give_back(state, order, changed, now=time.time())
                return  # another process may hold the code that was asked for
        if stop.asked or runner.memory_ran_out:
            return  # or the controller would hand over the next job
        answer("ended", order.job)
