"""The share that a job is: its worker says of which kind it is, and shares with its own kind."""

from __future__ import annotations

from loopscope.specs.actions import SHAREABLE
from loopscope.state.db import shares
from loopscope.state.failures import TransientFailure
from loopscope.state.folder import StateFolder
from loopscope.state.records import OTHER_KIND, JobRecord
from loopscope.state.share import Share


def share_of(state: StateFolder, job: JobRecord, kind: str) -> Share | None:
    """Return which share a job is, None for one with an artifact of its own; note ``kind``.

    Until that is noted of its worker, nobody shares the job. Raises TransientFailure ``OtherKind``
    for a share of a job that another kind works on.
    """
    if job.stage not in SHAREABLE:
        return None
    worker = job.worker or ""
    with state.database.read() as connection:
        known, share = shares.maker_of(connection, worker), shares.get(connection, job.id)
    if known != kind:
        with state.database.write() as connection:
            shares.note_maker(connection, worker, kind)
    if share is not None and share.maker != kind:
        words = f"its shards are made by {share.maker}, and this worker is {kind}"
        raise TransientFailure(
            OTHER_KIND, f"{words}; job {share.of_job} makes what nobody else does"
        )
    return share
