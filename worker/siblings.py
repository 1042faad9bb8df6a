"""Pending captures that the forward passes of another one can serve.

They differ in the hook, or in which positions are kept, and in nothing that the passes see. Shards
are computed for them and sealed in their own work folders; they publish themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from loopscope.state import jobs
from loopscope.state.folder import StateFolder
from loopscope.state.records import JobHead
from loopscope.worker.shards import Shards

SIBLINGS_MAX = 16
"""How many other captures one forward pass serves: their vectors are in memory at once."""


@dataclass(frozen=True)
class Sibling:
    """Another capture of the same texts by the same model, and where its shards belong."""

    hook: str
    shards: Shards


def pending_siblings(state: StateFolder, job: JobHead) -> list[Sibling]:
    """Return the pending capture jobs that the passes of ``job`` can serve, oldest first."""
    with state.database.read() as connection:
        candidates = jobs.served_by(connection, job)[:SIBLINGS_MAX]
        found = [jobs.get(connection, job_id) for job_id in candidates]
    return [
        Sibling(other.payload["hook"], Shards(state.artifacts.work_folder(other.digest)))
        for other in found
        if other is not None
    ]
