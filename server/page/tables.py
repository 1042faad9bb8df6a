"""Queue, workers and events: the tables of the commands."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopscope.controller.jobs.queue_view import read_view
from loopscope.reports.tables.events import EVENT_COLUMNS, event_row
from loopscope.reports.tables.queue import queue_lines, queue_table
from loopscope.reports.tables.workers import workers_table
from loopscope.reports.text_table import TextTable
from loopscope.server.answers import as_json
from loopscope.server.page.site import PREFIX, Site, as_table
from loopscope.specs.json_values import Json
from loopscope.specs.keys import Key
from loopscope.state.db import events
from loopscope.state.records import EventRecord
from loopscope.views.workers import workers_of

ROWS_MAX = 500


def routes(site: Site) -> list[Route]:
    """Return the routes of the three tables."""
    tables = Tables(site)
    return [
        Route(f"{PREFIX}/queue", tables.queue),
        Route(f"{PREFIX}/workers", tables.workers),
        Route(f"{PREFIX}/events", tables.events),
    ]


class Tables:
    """Answers with tables, at most ``ROWS_MAX`` rows of each."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def queue(self, request: Request) -> Response:
        """Return limits, jobs and what waits for another object; ended jobs if asked for."""
        ended = request.query_params.get("all") == "1"
        settings = self._site.queue_settings
        with self._site.state.database.read() as connection:
            view = read_view(
                connection, self._site.state.path, settings, self._site.now(), ended=ended
            )
        keys = [*(one.job.object for one in view.jobs), *(one.key for one in view.upstream)]
        lines: list[Json] = [*queue_lines(view)]
        return as_json({"lines": lines, **_cut(queue_table(view), [*keys])})

    def workers(self, _: Request) -> Response:
        """Return the workers."""
        with self._site.state.database.read() as connection:
            found = workers_of(connection)
        keys = [one.job.object if one.job is not None else None for one in found]
        return as_json(_cut(workers_table(found), keys))

    def events(self, _: Request) -> Response:
        """Return what happened, the newest first."""
        with self._site.state.database.read() as connection:
            found = events.listed(connection)
        return as_json(events_table(found, now=self._site.now()))


def events_table(found: list[EventRecord], *, now: float) -> dict[str, Json]:
    """Return events as a table, the newest first."""
    newest = found[::-1][:ROWS_MAX]
    rows = [event_row(one, now=now) for one in newest]
    made = as_table(TextTable(EVENT_COLUMNS, rows), [one.key for one in newest])
    return {**made, "left": len(found) - len(newest)}


def _cut(table: TextTable, keys: list[Key | None]) -> dict[str, Json]:
    shown = TextTable(table.columns, table.rows[:ROWS_MAX])
    return {**as_table(shown, keys[:ROWS_MAX]), "left": len(table.rows) - len(shown.rows)}
