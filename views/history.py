"""Earlier specs of an object: what each was, and what made it another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loopscope.specs.json_values import Json
from loopscope.specs.merging import differences
from loopscope.state.db import revisions
from loopscope.state.db.connection import Connection
from loopscope.state.records import ObjectRecord


@dataclass(frozen=True)
class Change:
    """A field of the spec; None stands for *not there*."""

    field: str
    before: Json
    after: Json


@dataclass(frozen=True)
class Revision:
    """A spec that an object has, or had. ``number`` is its generation.

    ``since`` is when it was stored, in Unix seconds; None where the one before is not kept.
    ``changes`` are those from the one before; None where that is not kept.
    """

    number: int
    spec: Mapping[str, Json]
    since: float | None
    changes: tuple[Change, ...] | None
    is_current: bool = False


def history_of(connection: Connection, record: ObjectRecord) -> list[Revision]:
    """Return the specs that an object had and the one that it has, oldest first."""
    earlier = revisions.listed(connection, record.uid)
    specs = [(one.generation, one.spec) for one in earlier]
    specs.append((record.generation, record.spec))
    began = {one.generation + 1: one.replaced_at for one in earlier} | {
        1: record.creation_timestamp
    }
    found = []
    for place, (number, spec) in enumerate(specs):
        before = specs[place - 1] if place else None
        known = before is not None and before[0] == number - 1
        changes = changes_of(before[1], spec) if before is not None and known else None
        current = number == record.generation
        found.append(Revision(number, spec, began.get(number), changes, current))
    return found


def changes_of(before: Mapping[str, Json], after: Mapping[str, Json]) -> tuple[Change, ...]:
    """Return the fields in which two specs differ, in name order."""
    return tuple(
        Change(".".join(one.path), one.before, one.after)
        for one in differences(dict(before), dict(after))
    )
