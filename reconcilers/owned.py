"""Children of an owner: those that should exist, against those that do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loopscope.reconcilers.plan import Blocked, ChildManifest, Snapshot
from loopscope.reconcilers.references import object_references
from loopscope.reconcilers.stage import LET_GO, condition
from loopscope.specs.keys import Key
from loopscope.specs.status import Condition
from loopscope.state.records import RULES_CHANGED, ObjectRecord


def taken_name(snapshot: Snapshot) -> Blocked | None:
    """Return why the children cannot be made: one of their names is someone else's."""
    for key in object_references(snapshot.object):
        found = snapshot.references.get(key)
        if found is not None and found.owner_uid != snapshot.object.uid:
            belongs = f"belongs to {found.owner}" if found.owner else "was applied by itself"
            return Blocked(
                "OwnedByAnother",
                f"{key} {belongs}; delete it, or rename this experiment",
                terminal=True,
            )
    return None


def to_apply(
    snapshot: Snapshot, wanted: Sequence[ChildManifest]
) -> tuple[tuple[ChildManifest, ...], tuple[Key, ...]]:
    """Return the children to create or bring back to what they should be, and those to remove.

    Those that rest on work of older rules stay as they are until their owner is edited.
    """
    existing = {child.key: child for child in snapshot.children}
    is_edited = snapshot.object.status.observed_generation != snapshot.object.generation
    apply = tuple(
        child
        for child in wanted
        if not _is_as_wanted(existing.get(child.key), child)
        and (is_edited or child.key not in snapshot.older)
    )
    return apply, tuple(sorted(set(existing) - {child.key for child in wanted}))


def of_older_rules(snapshot: Snapshot, owned: Mapping[str, ObjectRecord | None]) -> list[Condition]:
    """Return the condition of an owner of objects that rest on work of older rules, if any do."""
    older = [n for n, c in owned.items() if c is not None and c.status.is_of_older_rules]
    if not older:
        return []
    message = f"{', '.join(older)} {'rests' if len(older) == 1 else 'rest'} on work of older rules"
    return [condition(snapshot, "RulesCurrent", "False", RULES_CHANGED, f"{message}; {LET_GO}")]


def _is_as_wanted(existing: ObjectRecord | None, wanted: ChildManifest) -> bool:
    if existing is None or existing.spec != wanted.spec:
        return False
    return dict(wanted.labels).items() <= existing.labels.items()
