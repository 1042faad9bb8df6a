"""The panels of the page: each is a module with ``routes(site)``."""

from __future__ import annotations

from starlette.routing import Route

from loopscope.server.page import (
    actions,
    documents,
    logs,
    now,
    objects,
    questions,
    shell,
    stream,
    studies,
    sweeps,
    tables,
    tree,
)
from loopscope.server.page.site import Site

PANELS = (
    *(shell, stream, now, tree, objects, tables, logs, documents, sweeps, studies),
    *(questions, actions),
)
"""A new one is a line here and one in ``static/panels.js``."""


def routes(site: Site) -> list[Route]:
    """Return the routes of all panels."""
    return [route for panel in PANELS for route in panel.routes(site)]
