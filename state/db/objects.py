"""The object store: apply, read, status, delete. Every change raises ``resourceVersion``."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from loopscope.specs.canonical import canonical_json
from loopscope.specs.keys import PROTECT_ANNOTATION, Key
from loopscope.specs.status import Condition, Status, with_transition_times
from loopscope.state import failpoints
from loopscope.state.db import applied, revisions, tables
from loopscope.state.failures import TerminalFailure
from loopscope.state.records import ChangeRecord, ObjectRecord

CHANGES_KEPT = 10_000
"""Retention of the change log in rows; an older watch gets ``Gone`` and lists again."""

ONE_BY_ONE_MAX = 500
"""More objects than this are found quicker in a listing of all."""

Outcome = Literal["created", "configured", "unchanged"]


class Conflict(Exception):
    """The object changed since it was read: read again, decide again."""


class Gone(Exception):
    """The change log no longer reaches back that far: list, then watch from there."""


class Protected(TerminalFailure):
    """The object carries ``loopscope.dev/protect`` and was not deleted."""


_o, _changed, _counted = tables.objects.c, tables.changes.c, tables.counters.c
_BY_KEY = select(tables.objects).where(*(_o[name] == bindparam(name) for name in Key._fields))
_BY_OWNER = (
    select(tables.objects).where(_o.owner_uid == bindparam("uid")).order_by(_o.kind, _o.name)
)
_WANTING = select(_o.kind, _o.namespace, _o.name).where(_o.wanted_digest == bindparam("digest"))
_WANTED = select(_o.wanted_digest).where(_o.wanted_digest.is_not(None)).distinct()
_OLDEST_CHANGE = select(func.min(_changed.resource_version))
_CHANGES_AFTER = (
    select(tables.changes)
    .where(_changed.resource_version > bindparam("version"))
    .order_by(_changed.resource_version)
)
_COUNTER = select(_counted.value).where(_counted.name == bindparam("counter"))
_RAISE = (
    update(tables.counters)
    .where(_counted.name == bindparam("counter"))
    .values(value=_counted.value + 1)
    .returning(_counted.value)
)
_SET_STATUS = (
    update(tables.objects)
    .where(*(_o[name] == bindparam(f"its_{name}") for name in Key._fields))
    .values({n: bindparam(f"new_{n}") for n in ("status", "wanted_digest", "resource_version")})
)
_LOG_CHANGE = insert(tables.changes)
"""Built once: these are most of all statements, and building one takes longer than running it."""


def get(connection: Connection, key: Key) -> ObjectRecord | None:
    """Return one object, or None."""
    row = connection.execute(_BY_KEY, key._asdict()).first()
    return record_of(row) if row else None


def listed(
    connection: Connection, kind: str | None = None, namespace: str | None = None
) -> list[ObjectRecord]:
    """Return objects in key order, optionally of one kind or namespace."""
    query = select(tables.objects).order_by("kind", "namespace", "name")
    if kind is not None:
        query = query.where(tables.objects.c.kind == kind)
    if namespace is not None:
        query = query.where(tables.objects.c.namespace == namespace)
    return [record_of(row) for row in connection.execute(query)]


def get_all(connection: Connection, wanted: Collection[Key]) -> list[ObjectRecord]:
    """Return those of the wanted objects that exist, in key order."""
    if len(wanted) > ONE_BY_ONE_MAX:
        return [record for record in listed(connection) if record.key in wanted]
    found = (get(connection, key) for key in sorted(wanted))
    return [record for record in found if record is not None]


def annotation_values(connection: Connection, annotation: str) -> list[tuple[Key, str]]:
    """Return the objects that carry an annotation, with its value, in key order."""
    value = _o.annotations[annotation].as_string()
    query = select(_o.kind, _o.namespace, _o.name, value).where(value.is_not(None))
    rows = connection.execute(query.order_by(_o.kind, _o.namespace, _o.name))
    return [(Key(*key), value) for *key, value in rows]


def all_keys(connection: Connection) -> list[Key]:
    """Return the key of every object, in key order."""
    o = tables.objects.c
    query = select(o.kind, o.namespace, o.name).order_by(o.kind, o.namespace, o.name)
    return [Key(*row) for row in connection.execute(query)]


def owned_by(connection: Connection, uid: str) -> list[ObjectRecord]:
    """Return the objects that name ``uid`` as their owner."""
    return [record_of(row) for row in connection.execute(_BY_OWNER, {"uid": uid})]


def wanting(connection: Connection, digest: str) -> list[Key]:
    """Return the objects whose status waits for, or rests on, this action digest."""
    return [Key(*row) for row in connection.execute(_WANTING, {"digest": digest})]


def wanted_digests(connection: Connection) -> set[str]:
    """Return the action digests that some object wants."""
    return set(connection.execute(_WANTED).scalars())


def apply(
    connection: Connection,
    key: Key,
    spec: Mapping[str, object],
    *,
    now: float,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    owner: ObjectRecord | None = None,
) -> Outcome:
    """Create the object, or update it; a new ``generation`` only if the spec changed."""
    old = get(connection, key)
    fields = {"labels": labels or {}, "annotations": annotations or {}}
    if old is None:
        _insert(connection, key, spec, fields, owner, now)
        return "created"
    owner_uid = owner.uid if owner else None
    if old.owner_uid != owner_uid:
        raise owned_by_another(old, owner)
    same_spec = canonical_json(old.spec) == canonical_json(spec)
    if same_spec and (old.labels, old.annotations) == (fields["labels"], fields["annotations"]):
        return "unchanged"
    if not same_spec:
        revisions.keep(connection, old, now=now)
    connection.execute(
        update(tables.objects)
        .where(_is(key))
        .values(
            spec=spec,
            **fields,
            generation=old.generation + (0 if same_spec else 1),
            resource_version=_log(connection, "MODIFIED", key),
        )
    )
    return "configured"


def owned_by_another(old: ObjectRecord, owner: ObjectRecord | None) -> TerminalFailure:
    """Return the refusal to apply an object that belongs to another owner."""
    belongs = str(old.owner) if old.owner else "no one"
    other = f", not to {owner.key}" if owner else ""
    return TerminalFailure(
        "OwnedByAnother",
        f"{old.key} belongs to {belongs}{other}; edit the owner, or choose another name",
    )


def annotate(connection: Connection, record: ObjectRecord, name: str, value: str | None) -> None:
    """Set an annotation, or with None take it away; spec and generation stay as they are."""
    others = {key: text for key, text in record.annotations.items() if key != name}
    connection.execute(
        update(tables.objects)
        .where(_is(record.key))
        .values(
            annotations=others if value is None else {**others, name: value},
            resource_version=_log(connection, "MODIFIED", record.key),
        )
    )


def update_status(
    connection: Connection, read: ObjectRecord, status: Status, wanted_digest: str | None
) -> bool:
    """Record a status that was decided from ``read``; return whether anything changed.

    Raises Conflict if the object changed since it was read, and ValueError if the status claims to
    have observed a generation that does not exist yet, or an earlier one than the last status.
    """
    current = get(connection, read.key)
    if current is None or current.resource_version != read.resource_version:
        raise Conflict(str(read.key))
    seen = status.observed_generation
    if not current.status.observed_generation <= seen <= current.generation:
        raise ValueError(f"{read.key}: observedGeneration {seen} of {current.generation}")
    if current.status == status and current.wanted_digest == wanted_digest:
        return False
    new: dict[str, object] = {"new_status": status.to_json(), "new_wanted_digest": wanted_digest}
    new["new_resource_version"] = _log(connection, "MODIFIED", read.key)
    where = {f"its_{name}": value for name, value in read.key._asdict().items()}
    connection.execute(_SET_STATUS, {**new, **where})
    return True


def take_ready_away(
    connection: Connection, digest: str, what: str, *, now: float, reason: str = "ArtifactDamaged"
) -> list[Key]:
    """Let no object be Ready that rests on this artifact, which is gone; return all that want it.

    Call in the transaction that forgets the artifact, so that no crash can fall in between.
    """
    found = wanting(connection, digest)
    for key in found:
        record = get(connection, key)
        if record is None or record.status.artifact is None:
            continue
        old = record.status
        conditions = [
            Condition("Ready", "False", reason, what, record.generation),
            Condition("Reconciling", "True", reason, what, record.generation),
        ]
        status = Status(
            observed_generation=old.observed_generation,
            conditions=with_transition_times(conditions, old.conditions, now),
            inputs=old.inputs,
        )
        update_status(connection, record, status, record.wanted_digest)
    return found


def remove(connection: Connection, key: Key, *, now: float) -> list[Key]:
    """Delete an object and what it owns; return the deleted keys.

    An object with finalizers is only marked (``deletionTimestamp``); the rest follows when
    the last finalizer is gone. Raises KeyError if the object does not exist, and Protected,
    before anything is changed, if it or something that would go with it is protected.
    """
    record = get(connection, key)
    if record is None:
        raise KeyError(str(key))
    doomed = refuse_protected(connection, record)
    return [one.key for one in doomed if _remove_one(connection, one, now)]


def refuse_protected(connection: Connection, record: ObjectRecord) -> list[ObjectRecord]:
    """Return what would go with an object, itself first; raises Protected if one is protected."""
    doomed = _with_what_it_owns(connection, record)
    for one in doomed:
        if one.annotations.get(PROTECT_ANNOTATION) == "true":
            raise Protected(
                "Protected", f'{one.key} carries {PROTECT_ANNOTATION}: "true"; remove it first'
            )
    return doomed


def _with_what_it_owns(connection: Connection, record: ObjectRecord) -> list[ObjectRecord]:
    """Return owners before what they own; what an object with finalizers owns stays for now."""
    children = [] if record.finalizers else owned_by(connection, record.uid)
    return [record, *(one for child in children for one in _with_what_it_owns(connection, child))]


def _remove_one(connection: Connection, record: ObjectRecord, now: float) -> bool:
    """Delete the row, or mark it if it has finalizers; return whether it is gone."""
    if not record.finalizers:
        failpoints.reach("object-delete")
        connection.execute(delete(tables.objects).where(_is(record.key)))
        applied.forget(connection, record.key)
        revisions.forget(connection, record.uid)
        _log(connection, "DELETED", record.key)
        return True
    if record.deletion_timestamp is None:
        version = _log(connection, "MODIFIED", record.key)
        connection.execute(
            update(tables.objects)
            .where(_is(record.key))
            .values(deletion_timestamp=now, resource_version=version)
        )
    return False


def resource_version(connection: Connection) -> int:
    """Return the newest version in the database."""
    return counter(connection, "resource_version")


def changes_since(connection: Connection, version: int) -> list[ChangeRecord]:
    """Return every change after ``version``, oldest first. Raises Gone as ``refuse_gone`` does."""
    if version == refuse_gone(connection, version):
        return []
    return [
        ChangeRecord(row.resource_version, row.type, Key(row.kind, row.namespace, row.name))
        for row in connection.execute(_CHANGES_AFTER, {"version": version})
    ]


def refuse_gone(connection: Connection, version: int) -> int:
    """Return the newest version, if every change between both is known.

    Raises Gone when the log does not reach back that far, or not up to there: then an older
    database was put in this one's place.
    """
    oldest = connection.execute(_OLDEST_CHANGE).scalar()
    newest = resource_version(connection)
    if version > newest:
        raise Gone(f"version {version} was never reached; the newest is {newest}")
    if version < newest and (oldest is None or version < oldest - 1):
        raise Gone(f"changes before {oldest} are no longer kept")
    return newest


def raise_counter(connection: Connection, name: str) -> int:
    """Raise a database-wide counter inside the running write transaction."""
    return int(connection.execute(_RAISE, {"counter": name}).scalar_one())


def counter(connection: Connection, name: str) -> int:
    """Return the newest value of a database-wide counter."""
    return int(connection.execute(_COUNTER, {"counter": name}).scalar_one())


def _log(connection: Connection, type_: Literal["ADDED", "MODIFIED", "DELETED"], key: Key) -> int:
    version = raise_counter(connection, "resource_version")
    change = {"resource_version": version, "type": type_, **key._asdict()}
    connection.execute(_LOG_CHANGE, change)
    if version % 100 == 0:
        failpoints.reach("changes-trim")
        old = tables.changes.c.resource_version <= version - CHANGES_KEPT
        connection.execute(delete(tables.changes).where(old))
    return version


def _insert(
    connection: Connection,
    key: Key,
    spec: Mapping[str, object],
    fields: dict[str, dict[str, str]],
    owner: ObjectRecord | None,
    now: float,
) -> None:
    connection.execute(
        insert(tables.objects).values(
            kind=key.kind,
            namespace=key.namespace,
            name=key.name,
            uid=str(uuid.uuid4()),
            generation=1,
            resource_version=_log(connection, "ADDED", key),
            spec=spec,
            status=Status().to_json(),
            finalizers=[],
            owner_kind=owner.key.kind if owner else None,
            owner_name=owner.key.name if owner else None,
            owner_uid=owner.uid if owner else None,
            creation_timestamp=now,
            **fields,
        )
    )


def _is(key: Key) -> ColumnElement[bool]:
    o = tables.objects.c
    return and_(o.kind == key.kind, o.namespace == key.namespace, o.name == key.name)


def record_of(row: Row[Any]) -> ObjectRecord:
    """Return a row of the table as a record."""
    return ObjectRecord(
        key=Key(row.kind, row.namespace, row.name),
        uid=row.uid,
        generation=row.generation,
        resource_version=row.resource_version,
        spec=row.spec,
        status=Status.from_json(row.status),
        creation_timestamp=row.creation_timestamp,
        deletion_timestamp=row.deletion_timestamp,
        labels=row.labels,
        annotations=row.annotations,
        finalizers=tuple(row.finalizers),
        owner=Key(row.owner_kind, row.namespace, row.owner_name) if row.owner_kind else None,
        owner_uid=row.owner_uid,
        wanted_digest=row.wanted_digest,
    )
