"""Writing: requests become applies and deletions, by the same code as those of commands."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

from loopscope.controller.apply.appliers import Applier, api_manager
from loopscope.controller.apply.deletion import would_come_back
from loopscope.controller.apply.intents import Intent, intents
from loopscope.controller.plan.editing import load_edited, store_edited, would_store
from loopscope.controller.plan.selection_power import selection_warnings
from loopscope.controller.plan.unchecked import unchecked_inputs
from loopscope.server.answers import GROUP, Refused, not_found, status
from loopscope.server.documents import Seen, seen, whole
from loopscope.server.requests import (
    PROPAGATIONS,
    Write,
    metadata_of,
    version_of,
    with_names,
)
from loopscope.server.settings import ServerSettings
from loopscope.specs.errors import InvalidSpec
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import Key
from loopscope.specs.merging import merge_patched
from loopscope.specs.status import Status
from loopscope.specs.yaml.loading import LoadedObject
from loopscope.specs.yaml.nodes import Document
from loopscope.specs.yaml.spec_sources import REQUEST
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord

TRIES_MAX = 5
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Of generated names: they spell no words."""


class Written(NamedTuple):
    """What came of a write: the object as it is now, and what the writer should know."""

    document: JsonObject
    created: bool
    warnings: list[str]


@dataclass(frozen=True)
class Writer:
    """Writes to one state folder. Each call raises Refused or Failure; then nothing was stored."""

    state: StateFolder
    settings: ServerSettings
    now: Callable[[], float]

    def create(self, write: Write, body: JsonObject) -> Written:
        """Store a new object."""
        metadata = metadata_of(body)
        if version_of(metadata) is not None:
            raise Refused(400, "metadata.resourceVersion: must not be set on what is created")
        prefix = metadata.get("generateName")
        if "name" not in metadata and isinstance(prefix, str):
            ending = "".join(secrets.choice(_LETTERS) for _ in range(5))
            metadata = {**metadata, "name": prefix + ending}
        kept = {name: value for name, value in metadata.items() if name != "generateName"}
        document = with_names({**body, "metadata": kept}, write, None)
        key = write.key(str(metadata_of(document)["name"])) if _is_named(document) else None
        if key is not None and self._stored(key) is not None:
            raise _exists(write, key.name)
        return self._store(write, document, _edits(write), None)

    def apply(self, write: Write, name: str, body: JsonObject) -> Written:
        """Apply an object on behalf of the field manager (server-side apply)."""
        applier = Applier(api_manager(write.manager), write.force)
        stored = self._stored(write.key(name))
        _refuse_outdated(write, stored, name, metadata_of(body))
        if "spec" not in body:
            if stored is None:
                raise not_found(write.resource.plural, name)
            body = _with_spec_of(stored, body)
        return self._store(write, with_names(body, write, name), applier, stored)

    def replace(self, write: Write, name: str, body: JsonObject) -> Written:
        """Store an object as it is given, in place of the version that was read."""
        stored = self._stored(write.key(name))
        if stored is None:
            raise not_found(write.resource.plural, name)
        if version_of(metadata_of(body)) is None:
            text = "metadata.resourceVersion: must be that of the version that was read"
            raise _invalid(write, name, [("metadata.resourceVersion", text)])
        _refuse_outdated(write, stored, name, metadata_of(body))
        document = _as_stored(write, name, stored, body)
        return self._store(write, document, _edits(write), stored)

    def merge(self, write: Write, name: str, patch: JsonObject) -> Written:
        """Change what a merge patch names; decided again when others write in between."""
        for attempt in range(TRIES_MAX):
            with self.state.database.read() as connection:
                stored = objects.get(connection, write.key(name))
                if stored is None:
                    raise not_found(write.resource.plural, name)
                (before,) = seen(connection, [stored], with_owned=False)
            _refuse_outdated(write, stored, name, metadata_of(patch))
            body = cast(JsonObject, merge_patched(whole(before), patch))
            document = _as_stored(write, name, stored, body)
            try:
                return self._store(write, document, _edits(write), stored)
            except Refused as refused:
                if refused.reason != "Conflict" or attempt == TRIES_MAX - 1:
                    raise
        raise AssertionError("the last try returns or raises")

    def delete(self, write: Write, name: str, options: Mapping[str, Json]) -> JsonObject:
        """Delete an object with what it owns; return a Status, or it while finalizers hold it."""
        propagation = options.get("propagationPolicy") or ""
        if propagation not in PROPAGATIONS or options.get("orphanDependents"):
            raise Refused(
                422,
                f"propagationPolicy: {propagation or 'Orphan'}: what an object owns goes with it; "
                "expected Background or Foreground",
            )
        dry_run = write.dry_run or options.get("dryRun") == ["All"]
        key = write.key(name)
        database = self.state.database
        with database.read() if dry_run else database.write() as connection:
            record = objects.get(connection, key)
            if record is None:
                raise not_found(write.resource.plural, name)
            _check_preconditions(write, record, options.get("preconditions") or {})
            refusal = would_come_back(connection, [key])
            if refusal is not None:
                raise TerminalFailure("OwnedByAnother", refusal)
            if dry_run:
                objects.refuse_protected(connection, record)
            else:
                objects.remove(connection, key, now=self.now())
            left = None if dry_run else objects.get(connection, key)
            if left is not None:
                return whole(seen(connection, [left], with_owned=False)[0])
        details: JsonObject = {
            "name": name,
            "group": GROUP,
            "kind": write.resource.plural,
            "uid": record.uid,
        }
        return status("Success", 200, details=details)

    def _stored(self, key: Key) -> ObjectRecord | None:
        with self.state.database.read() as connection:
            return objects.get(connection, key)

    def _store(
        self, write: Write, document: JsonObject, applier: Applier, stored: ObjectRecord | None
    ) -> Written:
        """Load, admit and store an object that was decided from what was ``stored``."""
        item = self._loaded(write, document)
        key = item.manifest.key
        notes = [*unchecked_inputs(self.state, [item]), *selection_warnings(self.state, [item])]
        warnings = [f"{one.field}: {one.message}" if one.field else one.message for one in notes]
        if write.dry_run:
            return Written(self._dry(write, item, applier), stored is None, warnings)
        before, confirm = {key: stored}, write.confirm
        try:
            store_edited(
                self.state, [item], before, now=self.now(), applier=applier, confirm=confirm
            )
        except (InvalidSpec, TerminalFailure) as failure:
            raise self._refusal(failure, write, item, applier, stored) from None
        with self.state.database.read() as connection:
            record = objects.get(connection, key)
            if record is None:  # deleted by others since
                raise not_found(write.resource.plural, key.name)
            found = seen(connection, [record], with_owned=False)[0]
        return Written(whole(found), stored is None, warnings)

    def _loaded(self, write: Write, document: JsonObject) -> LoadedObject:
        folder, root = self.settings.folder, self.settings.root
        name = metadata_of(document).get("name")
        try:
            (item,) = load_edited([Document(str(REQUEST), document, {})], folder, root)
        except InvalidSpec as invalid:
            raise _refused_spec(write, str(name or ""), invalid) from None
        return item

    def _dry(self, write: Write, item: LoadedObject, applier: Applier) -> JsonObject:
        """Return the object as it would be; raises what storing it would raise."""
        try:
            (intent,) = would_store(
                self.state, [item], now=self.now(), applier=applier, confirm=write.confirm
            )
        except (InvalidSpec, TerminalFailure) as failure:
            raise self._refusal(failure, write, item, applier, None) from None
        last = None if intent.stored is None else intent.record
        return whole(Seen(self._as_it_would_be(intent), last))

    def _as_it_would_be(self, intent: Intent) -> ObjectRecord:
        labels, annotations = intent.labels, intent.annotations
        if intent.stored is None:
            return ObjectRecord(
                intent.key, "", 1, 0, intent.spec, Status(), self.now(), None, labels, annotations
            )
        generation = intent.stored.generation + (0 if intent.is_same_spec else 1)
        return replace(
            intent.stored,
            spec=intent.spec,
            labels=labels,
            annotations=annotations,
            generation=generation,
        )

    def _refusal(
        self,
        failure: InvalidSpec | TerminalFailure,
        write: Write,
        item: LoadedObject,
        applier: Applier,
        stored: ObjectRecord | None,
    ) -> Exception:
        """Return a failure in the forms that clients know; any other as it is."""
        name = item.manifest.key.name
        if isinstance(failure, InvalidSpec):
            return _refused_spec(write, name, failure)
        if failure.reason == "PlanOutdated":
            return _exists(write, name) if stored is None else _modified(write, name)
        if failure.reason != "Conflict":
            return failure
        with self.state.database.read() as connection:
            causes = _conflicts(connection, item, applier)
        details: JsonObject = {"name": name, "group": GROUP, "kind": write.resource.plural}
        return Refused(409, failure.message, "Conflict", {**details, "causes": causes})


def _edits(write: Write) -> Applier:
    return Applier(api_manager(write.manager), edits=True)


def _is_named(document: JsonObject) -> bool:
    return isinstance(metadata_of(document).get("name"), str)


def _conflicts(connection: Connection, item: LoadedObject, applier: Applier) -> list[Json]:
    """Return the fields that belong to another manager, as server-side apply names them."""
    try:
        (forced,) = intents(connection, [item], replace(applier, force=True))
    except TerminalFailure:
        return []
    return [
        {
            "reason": "FieldManagerConflict",
            "field": f".{change.field}",
            "message": "belongs to another field manager",
        }
        for change in forced.changes
    ]


def _with_spec_of(stored: ObjectRecord, body: JsonObject) -> JsonObject:
    """Return an apply of metadata alone as one of the object with the spec that it has."""
    metadata = metadata_of(body)
    names = {"labels": {**stored.labels}, "annotations": {**stored.annotations}}
    given = {
        name: merge_patched(cast(Json, value), metadata.get(name, {}))
        for name, value in names.items()
    }
    return {**body, "metadata": {**metadata, **given, "uid": stored.uid}, "spec": stored.spec}


def _as_stored(write: Write, name: str, stored: ObjectRecord, body: JsonObject) -> JsonObject:
    """Return an edited object as one that was printed by the store; raises Refused."""
    document = with_names(body, write, name)
    metadata = metadata_of(document)
    if metadata.get("finalizers", []) != list(stored.finalizers):
        text = "finalizers are set by Loopscope alone"
        raise _invalid(write, name, [("metadata.finalizers", text)])
    if metadata.get("uid", stored.uid) != stored.uid:
        raise _modified(write, name)
    return {**document, "metadata": {**metadata, "uid": stored.uid}}


def _refuse_outdated(
    write: Write, stored: ObjectRecord | None, name: str, metadata: JsonObject
) -> None:
    version = version_of(metadata)
    if version is not None and (stored is None or stored.resource_version != version):
        raise _modified(write, name)


def _check_preconditions(write: Write, record: ObjectRecord, wanted: Json) -> None:
    found = {"uid": record.uid, "resourceVersion": str(record.resource_version)}
    if not isinstance(wanted, dict):
        raise Refused(400, "preconditions: expected a mapping")
    for field, value in wanted.items():
        if value is not None and found.get(field) != str(value):
            raise Refused(
                409, f"{field} of {record.key} is {found.get(field)}, not {value}", "Conflict"
            )


def _exists(write: Write, name: str) -> Refused:
    words = f'{write.resource.plural}.{GROUP} "{name}" already exists'
    details: JsonObject = {"name": name, "group": GROUP, "kind": write.resource.plural}
    return Refused(409, words, "AlreadyExists", details)


def _modified(write: Write, name: str) -> Refused:
    plural = write.resource.plural
    details: JsonObject = {"name": name, "group": GROUP, "kind": plural}
    return Refused(
        409,
        f'Operation cannot be fulfilled on {plural}.{GROUP} "{name}": the object has been '
        "modified; please apply your changes to the latest version and try again",
        "Conflict",
        details,
    )


def _refused_spec(write: Write, name: str, invalid: InvalidSpec) -> Refused:
    return _invalid(write, name, [(one.field, one.message) for one in invalid.problems])


def _invalid(write: Write, name: str, problems: list[tuple[str, str]]) -> Refused:
    causes: list[Json] = [
        {"reason": "FieldValueInvalid", "field": field, "message": message}
        for field, message in problems
    ]
    words = "; ".join(f"{field}: {text}" if field else text for field, text in problems)
    details: JsonObject = {"name": name, "group": GROUP, "kind": write.resource.kind}
    return Refused(
        422,
        f'{write.resource.kind}.{GROUP} "{name}" is invalid: {words}',
        "Invalid",
        {**details, "causes": causes},
    )


def warning_headers(warnings: list[str]) -> list[tuple[str, str]]:
    """Return warnings as headers, which clients print."""
    return [("Warning", f'299 - "{_quoted(text)}"') for text in warnings]


def _quoted(text: str) -> str:
    plain = text.encode("ascii", "replace").decode()
    return re.sub(r'(["\\])', r"\\\1", " ".join(plain.split()))
