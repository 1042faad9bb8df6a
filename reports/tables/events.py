"""The table of ``events``: what happened, repeats counted."""

from __future__ import annotations

from loopscope.state.records import EventRecord
from loopscope.views.numbers import age

EVENT_COLUMNS = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE"]


def event_row(event: EventRecord, *, now: float) -> list[str]:
    """Return the cells of an event."""
    seen = age(now - event.last_seen_at)
    return [seen, event.type, event.reason, str(event.key), str(event.count), event.message]
