"""One object: how far it is and why, its conditions, what it owns, its jobs and its events."""

from __future__ import annotations

import hashlib

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopscope.controller.jobs.queue_view import read_view
from loopscope.controller.plan.explaining import explain
from loopscope.reports.tables.describe import condition_rows
from loopscope.reports.text_table import TextTable
from loopscope.server.answers import as_json
from loopscope.server.page.nodes import nodes
from loopscope.server.page.site import PREFIX, Site, as_table, found, key_of
from loopscope.server.page.tables import events_table
from loopscope.server.page.tree import as_object, owned_nodes
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.state.db import events, jobs
from loopscope.state.db.connection import Connection
from loopscope.state.records import ObjectRecord
from loopscope.views.documents.explanation import explanation_document
from loopscope.views.jobs import job_detail
from loopscope.views.numbers import age
from loopscope.views.present import is_controlled, present, present_jobs
from loopscope.views.progress import RunProgress
from loopscope.views.stages import descendants

JOBS_MAX = 50
CONDITION_COLUMNS = ["TYPE", "STATUS", "REASON", "AGE", "MESSAGE"]
JOB_COLUMNS = ["ID", "STAGE", "STATE", "OBJECT", "ATTEMPTS", "AGE", "DETAIL"]


def routes(site: Site) -> list[Route]:
    """Return the route of one object."""

    def one(request: Request) -> Response:
        return as_json(_one(site, request))

    return [Route(f"{PREFIX}/objects/{{kind}}/{{namespace}}/{{name}}", one)]


def _one(site: Site, request: Request) -> JsonObject:
    key, now = key_of(request), site.now()
    with site.state.database.read() as connection:
        record = found(connection, key)
        (shown,) = present(connection, [record])
        (node,) = nodes(connection, [record], now=now)
        family = [record, *descendants(connection, [record])]
        controlled = is_controlled(connection)
        said = explain(
            connection,
            site.state.artifacts,
            key,
            now=now,
            controlled=controlled,
            queue=lambda: read_view(connection, site.state.path, site.queue_settings, now),
        )
        happened = [e for one in family for e in events.listed(connection, one.key)]
        work = _jobs(connection, family, now)
    happened.sort(key=lambda event: event.last_seen_at)
    made: JsonObject = {
        "node": node,
        "about": as_object(shown),
        "conditions": as_table(_conditions(shown, now)),
        "why": explanation_document(said),  # type: ignore[dict-item] # JSON by its types
        "owned": owned_nodes(site, record),
        "jobs": work,
        "events": events_table(happened, now=now),
        "report": _report(site, record, family),
    }
    if key.kind == "Experiment":
        _, whole = RunProgress(site.state, [key]).read(now)
        made["whole"] = str(whole)
        made["share"] = whole.share
    return made


def _conditions(record: ObjectRecord, now: float) -> TextTable:
    return TextTable(CONDITION_COLUMNS, condition_rows(record, now))


def _jobs(connection: Connection, family: list[ObjectRecord], now: float) -> JsonObject:
    """Return the newest jobs of an object and of what it owns, the newest first."""
    keys = {record.key for record in family}
    digests = {record.wanted_digest for record in family if record.wanted_digest}
    listed = jobs.listed(connection, ended=True)
    ours = [job for job in listed if job.object in keys or job.digest in digests]
    shown = present_jobs(connection, ours[::-1][:JOBS_MAX])
    progress = jobs.progress_of(connection)
    rows = [
        [
            str(job.id),
            job.stage,
            job.state,
            str(job.object),
            str(job.attempts),
            age(now - job.created_at),
            job_detail(job, progress.get(job.id), now=now),
        ]
        for job in shown
    ]
    left: Json = len(ours) - len(shown)
    return {**as_table(TextTable(JOB_COLUMNS, rows), [job.object for job in shown]), "left": left}


def _report(site: Site, record: ObjectRecord, family: list[ObjectRecord]) -> Json:
    """Return where the report lies, and what changes when it would be another."""
    if record.key.kind not in OWNER_KINDS:
        return None
    kind, namespace, name = record.key
    capability = site.capability("report", kind, namespace, name)
    return {
        "address": f"{PREFIX}/reports/{capability}/{kind}/{namespace}/{name}",
        "version": report_version(family),
    }


def report_version(family: list[ObjectRecord]) -> str:
    """Return what is another when an experiment or something that it owns is another."""
    words = "\0".join(f"{one.uid}@{one.resource_version}" for one in family)
    return hashlib.sha256(words.encode()).hexdigest()[:16]
