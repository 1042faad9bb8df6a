"""Refusal of a job whose digest and controller mean other code than this process holds."""

from __future__ import annotations

import structlog

from loopscope.specs.actions import CODE_REVISIONS
from loopscope.state.db import jobs
from loopscope.state.db.jobs import Fenced
from loopscope.state.failures import PASSING
from loopscope.state.folder import StateFolder
from loopscope.state.orders import Order
from loopscope.state.retry_policy import RetryPolicy
from loopscope.state.source_code import CodeChanged, SourceCode

log = structlog.get_logger("worker")


def check_code(order: Order, source: SourceCode) -> None:
    """Raise CodeChanged when the order means another revision of its stage, or other sources."""
    stage = next((name for name in CODE_REVISIONS if name == order.stage), None)
    order.check(CODE_REVISIONS[stage] if stage else None, source.of_stage(order.stage))


def give_back(state: StateFolder, order: Order, why: CodeChanged, *, now: float) -> None:
    """Let the job wait, no attempt lost; do nothing if this worker lost it."""
    log.warning("job refused", job=order.job, why=why.message)
    until = now + RetryPolicy().wait_seconds
    try:
        with state.database.write() as connection:
            jobs.postpone(connection, order.job, order.token, why.reason, why.message, until=until)
    except Fenced:
        log.info("job taken away", job=order.job)
    except PASSING as trouble:
        log.warning("job not given back; its lease will be taken back", why=str(trouble))
