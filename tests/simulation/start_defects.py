"""Defects of how a job starts: on which way to its inputs, and by which code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from loopscope.controller.jobs import present, starting
from loopscope.state.db import job_ways, jobs, knowledge
from loopscope.state.db.connection import Connection
from loopscope.state.orders import Order
from tests.simulation.defects import Patch, nothing


def payloads_as_queued() -> list[Patch]:
    return [(job_ways, "renew", nothing)]


def upstreams_as_they_say() -> list[Patch]:
    return [(present, "_is_of_now", lambda *_: True)]


def any_code_computes() -> list[Patch]:
    return [(Order, "check", nothing)]


def started_as_queued() -> list[Patch]:
    """Nobody asks whether what a job is named by is still wanted of this code."""

    def order(connection: Connection, job_id: int, now: float) -> Any:
        job = jobs.get(connection, job_id)
        action = SimpleNamespace(
            stage=job.stage,
            digest=job.digest,
            payload=job.payload,
            code_revision=job.code_revision,
        )
        known = knowledge.beside_jobs(connection)
        return present.Present(job.object, job.generation, action, known)

    return [(starting, "present_order", order)]
