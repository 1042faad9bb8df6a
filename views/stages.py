"""Words for how far a stage is, and objects by the object that owns them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.state.db import pages
from loopscope.state.db.connection import Connection
from loopscope.state.records import ObjectRecord
from loopscope.views.numbers import MISSING

DONE_WORDS = ("Ready", "Skipped", "Blinded", "Outdated")
"""Words of ``stage_word`` for stages with nothing to do unless it is asked for."""


def stage_word(record: ObjectRecord | None) -> str:
    """Return one word for how far a stage is; a dash for one that is not there."""
    return MISSING if record is None else record.stage_word


def object_word(record: ObjectRecord) -> str:
    """Return one word for how far an object is, be it a stage or an experiment."""
    if record.key.kind not in OWNER_KINDS:
        return record.stage_word
    return "Ready" if record.ready else "Stalled" if record.stalled else "Reconciling"


def by_owner(records: Iterable[ObjectRecord]) -> dict[str, list[ObjectRecord]]:
    """Group objects by the uid of their owner; what has no owner is left out."""
    groups: dict[str, list[ObjectRecord]] = {}
    for record in records:
        if record.owner_uid is not None:
            groups.setdefault(record.owner_uid, []).append(record)
    return groups


def descendants(connection: Connection, owners: Sequence[ObjectRecord]) -> list[ObjectRecord]:
    """Return what objects own, and what that owns, the nearer first."""
    found: list[ObjectRecord] = []
    while owners:
        owners = pages.owned_by_any(connection, [owner.uid for owner in owners])
        found.extend(owners)
    return found
