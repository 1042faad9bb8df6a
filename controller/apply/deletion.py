"""Deletion of what someone names: an owned object goes with its owner, not by itself."""

from __future__ import annotations

from collections.abc import Sequence

from loopscope.specs.keys import Key
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection


def would_come_back(connection: Connection, keys: Sequence[Key]) -> str | None:
    """Return why objects cannot be deleted: their owner would make one again; None if they can."""
    for record in objects.get_all(connection, keys):
        if record.owner is not None and record.owner not in keys:
            return (
                f"{record.key} belongs to {record.owner} and would come back; "
                f"delete {record.owner}, or edit its spec"
            )
    return None


def would_remove(connection: Connection, key: Key) -> list[Key]:
    """Return what ``objects.remove`` would delete; raises what it would raise."""
    record = objects.get(connection, key)
    if record is None:
        raise KeyError(str(key))
    return [one.key for one in objects.refuse_protected(connection, record) if not one.finalizers]
