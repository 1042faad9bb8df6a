"""The present: what runs, what needs a human and what to do about it, how much is done."""

from __future__ import annotations

from collections import Counter

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopscope.controller.jobs.queue_view import BEHIND, read_view
from loopscope.controller.plan.explaining import explain
from loopscope.reports.tables.queue import queue_lines
from loopscope.server.answers import as_json
from loopscope.server.page.site import PREFIX, Site, key_json
from loopscope.specs.json_values import Json, JsonObject
from loopscope.state.db import objects, roots
from loopscope.state.db.connection import Connection
from loopscope.state.records import ObjectRecord
from loopscope.views.jobs import job_detail, remaining_seconds
from loopscope.views.numbers import age
from loopscope.views.present import present
from loopscope.views.queue import JobInQueue, QueueView

SHOWN_MAX = 20
"""Running jobs, and objects that need a human."""
LOOKED_AT_MAX = 200


def routes(site: Site) -> list[Route]:
    """Return the route of the overview."""

    def now(_: Request) -> Response:
        return as_json(_now(site))

    return [Route(f"{PREFIX}/now", now)]


def _now(site: Site) -> JsonObject:
    at = site.now()
    with site.state.database.read() as connection:
        view = read_view(connection, site.state.path, site.queue_settings, at)
        stuck = _stuck(connection)
        words = Counter(
            "Ready"
            if status.is_true("Ready", generation)
            else "Stalled"
            if status.is_true("Stalled", generation)
            else "Reconciling"
            for _, generation, status in roots.statuses(connection, "Experiment")
        )
        attention: list[Json] = [
            _attention(site, connection, record, at, controlled=view.leader is not None)
            for record in stuck[:SHOWN_MAX]
        ]
    running = [one for one in view.jobs if one.job.state == "running"]
    lines: list[Json] = [*queue_lines(view)]
    jobs: list[Json] = [_running(one, view) for one in running[:SHOWN_MAX]]
    return {
        "lines": lines,
        "controlled": view.leader is not None,
        "experiments": {**words},
        "running": jobs,
        "pending": sum(one.job.state == "pending" for one in view.jobs),
        "waiting": len(view.upstream),
        "attention": attention,
        "stuck": len(stuck),
    }


def _running(one: JobInQueue, view: QueueView) -> JsonObject:
    job, progress = one.job, one.progress
    share = progress.done / progress.total if progress is not None and progress.total > 0 else None
    left = remaining_seconds(progress) if progress is not None else None
    return {
        "job": job.id,
        "stage": job.stage,
        "object": key_json(job.object),
        "detail": job_detail(job, progress, now=view.now, makes_room_for=one.makes_room_for),
        "share": share,
        "left": age(left) if left is not None and left >= 1 else "",
        "runs": age(view.now - job.started_at) if job.started_at is not None else "",
    }


def _stuck(connection: Connection) -> list[ObjectRecord]:
    """Return the objects at which a human must act, not those that stand behind them."""
    maybe = present(connection, roots.speaking_of(connection, ["Stalled"], rows_max=LOOKED_AT_MAX))
    found = [record for record in maybe if record.stalled]
    owners = {record.owner_uid for record in found}
    innermost = [record for record in found if record.uid not in owners]
    causes = [record for record in innermost if not _waits_for_another(record)]
    return causes or innermost


def _waits_for_another(record: ObjectRecord) -> bool:
    stalled = record.status.condition("Stalled")
    return stalled is not None and stalled.reason == BEHIND


def _attention(
    site: Site, connection: Connection, record: ObjectRecord, at: float, *, controlled: bool
) -> JsonObject:
    said = explain(connection, site.state.artifacts, record.key, now=at, controlled=controlled)
    ready = record.status.condition("Stalled")
    owner = objects.get(connection, record.owner) if record.owner is not None else None
    return {
        "object": key_json(record.key),
        "owner": key_json(owner.key) if owner is not None else None,
        "reason": ready.reason if ready is not None else "",
        "message": ready.message if ready is not None else "",
        "for": age(at - ready.last_transition_time) if ready is not None else "",
        "next": said.next,
        "who": said.who,
    }
