"""What an owner wants to exist, against what exists."""

from __future__ import annotations

from collections.abc import Sequence

from loopscope.reconcilers.plan import Blocked, ChildManifest, Snapshot
from loopscope.reconcilers.references import object_references
from loopscope.specs.keys import Key
from loopscope.state.records import ObjectRecord


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
    """Return the children to create or bring back to what they should be, and those to remove."""
    existing = {child.key: child for child in snapshot.children}
    apply = tuple(child for child in wanted if not _is_as_wanted(existing.get(child.key), child))
    return apply, tuple(sorted(set(existing) - {child.key for child in wanted}))


def _is_as_wanted(existing: ObjectRecord | None, wanted: ChildManifest) -> bool:
    if existing is None or existing.spec != wanted.spec:
        return False
    return dict(wanted.labels).items() <= existing.labels.items()
