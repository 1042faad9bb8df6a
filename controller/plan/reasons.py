"""Reasons why a stage runs: the declared values that differ from those of its last work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from loopscope.controller.reconcile.snapshots import StoredObjects, read_snapshot
from loopscope.reconcilers.plan import Blocked, Desired, Observed, Snapshot, Wanted
from loopscope.reconcilers.registry import DESIRED_BY_KIND
from loopscope.specs.merging import differences
from loopscope.specs.pipeline import PIPELINE
from loopscope.specs.revisions import changed_rules, revisions_of
from loopscope.state.artifacts.store import ArtifactStore, Corrupt
from loopscope.state.db import jobs
from loopscope.state.db.connection import Connection
from loopscope.state.records import ObjectRecord

_INPUTS: dict[str, str] = {
    **{node.name: node.words for node in PIPELINE},
    "model": "the model",
    "dictionary": "the dictionary",
    "capture": "the content of the capture",
    "directions": "the directions of the mapping",
    "sides": "the decompositions",
    "candidates": "the candidates of the coarse side",
}
"""Declared values that are hashes or lists of numbers; they are named, not shown."""
WORDS_MAX = 120


def reasons(
    connection: Connection,
    store: ArtifactStore,
    stored: ObjectRecord | None,
    snapshot: Snapshot,
    desired: Desired,
    observed: Observed,
) -> tuple[str, ...]:
    """Return why the stage in ``snapshot`` is not done, the most informative reason first."""
    if observed.damage is not None:
        return (observed.damage,)
    if stored is None or stored.wanted_digest is None:
        return (*spec_changes(stored, snapshot.object), "nothing was made for it yet")
    if isinstance(desired, Blocked):
        return spec_changes(stored, snapshot.object)
    assert isinstance(desired, Wanted)  # an answer needs no work, so there are no reasons for it
    if desired.action.digest == stored.wanted_digest:
        return ("its artifact is missing",) if stored.status.artifact else ("not finished yet",)
    changed = _declared_changes(connection, stored, snapshot.now, desired)
    revision = _revision_change(store, stored)
    return (*revision, *changed) or ("what it rests on is not the same any more",)


def declared_before(
    connection: Connection, stored: ObjectRecord, now: float
) -> tuple[Mapping[str, object], Literal["declared", "payload"]] | None:
    """Return the declared values of the work that an object rests on, if they can be recovered.

    They are derived again from what is stored; where that leads to other work, its newest job
    still has most of them in its payload.
    """
    snapshot = read_snapshot(connection, stored.key, now, StoredObjects(connection))
    was = DESIRED_BY_KIND[stored.key.kind](snapshot) if snapshot is not None else None
    if isinstance(was, Wanted) and was.action.digest == stored.wanted_digest:
        return was.action.declared, "declared"
    newest = jobs.find_latest(connection, stored.wanted_digest or "")
    job = jobs.get(connection, newest.id) if newest is not None else None
    return (job.payload, "payload") if job is not None else None


def _declared_changes(
    connection: Connection, stored: ObjectRecord, now: float, desired: Wanted
) -> tuple[str, ...]:
    found = declared_before(connection, stored, now)
    if found is None:
        return ()
    before, which = found
    after = desired.action.declared if which == "declared" else desired.action.payload
    return tuple(
        change_words(name, before.get(name), after.get(name))
        for name in changed_names(before, after)
    )


def changed_names(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return the names of the values that differ."""
    return [n for n in sorted(before.keys() | after.keys()) if before.get(n) != after.get(n)]


def change_words(name: str, before: object, after: object) -> str:
    """Return in words how one declared value differs."""
    if name in _INPUTS:
        return f"{_INPUTS[name]} changed"
    if isinstance(before, dict) and isinstance(after, dict):
        return ", ".join(
            f"{name}.{'.'.join(one.path)}: {short(one.before)} -> {short(one.after)}"
            for one in differences(before, after)
        )
    if isinstance(before, list) and isinstance(after, list):
        return f"{name}: {_list_words(before, after)}"
    return f"{name}: {short(before)} -> {short(after)}"


def _list_words(before: list[object], after: list[object]) -> str:
    if len(before) + len(after) <= 6 and not any(isinstance(v, dict) for v in before + after):
        return f"{short(before)} -> {short(after)}"
    old, new = ({json.dumps(item, sort_keys=True) for item in side} for side in (before, after))
    added, gone = len(new - old), len(old - new)
    if not added and not gone and len(before) == len(after) > len(old):
        differing = sum(a != b for a, b in zip(before, after, strict=True))
        return f"{differing} of {len(after)} differ"
    if not added and not gone:
        return "the same in another order"
    return f"{added} new, {gone} gone, of {len(after)}"


def spec_changes(stored: ObjectRecord | None, planned: ObjectRecord) -> tuple[str, ...]:
    """Return in words how the spec of an object would change; of a new one, nothing."""
    if stored is None or stored.spec == planned.spec:
        return ()
    return tuple(
        change_words(".".join(("spec", *one.path)), one.before, one.after)
        for one in differences(stored.spec, planned.spec)
    )


def _revision_change(store: ArtifactStore, stored: ObjectRecord) -> tuple[str, ...]:
    reference = stored.status.artifact
    if reference is None:
        return ()
    try:
        made_by = revisions_of(store.manifest(reference.stage, reference.digest))
    except (Corrupt, OSError):
        return ()
    return tuple(changed_rules(made_by))


def short(value: object) -> str:
    """Return a value as JSON, cut where it is long."""
    if value is None:
        return "(not set)"
    if isinstance(value, list) and len(value) > 8:
        return f"[{len(value)} items]"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WORDS_MAX else f"{text[:WORDS_MAX]}…"
