"""Work of older rules, after an upgrade: found, kept as it is, and released on confirmation.

A stage whose code computes something else now has a higher revision, so that every object of that
stage wants other work. That work was not asked for, so none of it begins by itself: what is
finished stays, with the rules by which it was made, until ``apply --confirm``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from loopscope.controller.plan.cached import is_reconciled
from loopscope.controller.reconcile.adoption import AtOnce
from loopscope.controller.reconcile.snapshots import Observer
from loopscope.reconcilers import experiment
from loopscope.reconcilers.plan import Plan, Snapshot
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.specs.status import Condition, Status, with_transition_times
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.db import applied, events, objects
from loopscope.state.db.connection import Connection
from loopscope.state.db.database import Database
from loopscope.state.records import RULES_CHANGED, ObjectRecord


@dataclass(frozen=True)
class OlderWork:
    """An object that rests on work of older rules; ``words``: which rules, and what changed."""

    key: Key
    root: Key
    digest: str
    words: str


def older_work(
    connection: Connection, observer: Observer, roots: Collection[Key], edited: Collection[Key] = ()
) -> list[OlderWork]:
    """Return what the objects of ``roots``, and what these own, have of older rules.

    A protected object loses none of its work, so it has nothing to let go, unless it is ``edited``.
    """
    if is_reconciled(connection):
        affected = applied.roots_of_older_rules(connection)
        roots = [key for key in roots if key in affected]
    if not roots:
        return []
    found = []
    for root in roots:
        family = _family(connection, root)
        if family and family[0].is_protected and root not in edited:
            continue
        for record in family:
            words, reference = observer.older_rules(record), record.status.artifact
            if words is not None and reference is not None:
                found.append(OlderWork(record.key, root, reference.digest, words))
    return found


def older_work_of(
    connection: Connection,
    store: ArtifactStore,
    roots: Collection[Key],
    edited: Collection[Key] = (),
) -> list[OlderWork]:
    """Return the same, with an observer of its own."""
    return older_work(connection, Observer(store, AtOnce(store)), roots, edited)


def let_go(connection: Connection, older: Iterable[OlderWork], *, now: float) -> list[OlderWork]:
    """Let objects no longer rest on work of older rules; return those that did until now.

    The artifacts stay. A controller makes new ones, from the outermost object on.
    """
    done = []
    for one in older:
        record = objects.get(connection, one.key)
        reference = record.status.artifact if record is not None else None
        if record is None or reference is None or reference.digest != one.digest:
            continue
        message = f"it is made again: {one.words}"
        conditions = [
            Condition("Ready", "False", RULES_CHANGED, message, record.generation),
            Condition("Reconciling", "True", RULES_CHANGED, message, record.generation),
        ]
        status = Status(
            observed_generation=record.status.observed_generation,
            conditions=with_transition_times(conditions, record.status.conditions, now),
        )
        objects.update_status(connection, record, status, None)
        events.record(connection, one.key, "Normal", "RulesConfirmed", message, now=now)
        done.append(one)
    return done


def plan_of_owner(database: Database, observer: Observer, snapshot: Snapshot) -> Plan:
    """Return the plan for an Experiment; new code alone changes nothing that it owns."""
    plan = experiment.plan(snapshot)
    if not plan.apply:
        return plan
    with database.read() as connection:
        older = {
            child.key
            for child in snapshot.children
            if any(
                observer.older_rules(record) is not None
                for record in _family(connection, child.key)
            )
        }
    return experiment.plan(replace(snapshot, older=frozenset(older))) if older else plan


def _family(connection: Connection, key: Key) -> list[ObjectRecord]:
    record = objects.get(connection, key)
    if record is None:
        return []
    owned = objects.owned_by(connection, record.uid) if key.kind in OWNER_KINDS else []
    return [record, *(one for child in owned for one in _family(connection, child.key))]
