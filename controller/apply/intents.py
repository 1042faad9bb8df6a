"""Intents of an apply: the three-way merge, one owner per object, the fields that change."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from loopscope.controller.apply.appliers import ANYBODY, Applier, described
from loopscope.controller.apply.planned import FieldChange
from loopscope.specs.canonical import canonical_json
from loopscope.specs.errors import InvalidSpec
from loopscope.specs.former_defaults import is_new_default
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import PROTECT_ANNOTATION, SOURCE_ANNOTATION, Key
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.merging import (
    asked_fields,
    differences,
    kept_names,
    leaves,
    merged,
    stated_fields,
)
from loopscope.specs.texts import READING_FIELDS
from loopscope.specs.yaml.exported import STORE_ANNOTATIONS, as_written
from loopscope.specs.yaml.loading import LoadedObject
from loopscope.state.db import applied, objects
from loopscope.state.db.connection import Connection
from loopscope.state.db.objects import Outcome
from loopscope.state.failures import TerminalFailure
from loopscope.state.records import AppliedRecord, ObjectRecord


@dataclass(frozen=True)
class Intent:
    """What an apply would make of one object."""

    key: Key
    stored: ObjectRecord | None
    spec: JsonObject
    labels: dict[str, str]
    annotations: dict[str, str]
    manager: str
    asked: dict[str, str]
    given_labels: tuple[str, ...]
    given_annotations: tuple[str, ...]
    stands: bool = False
    """It is as it was asked for: nothing is written, not even who applies it."""
    stated: frozenset[tuple[str, ...]] = frozenset()
    """The fields of the spec that its file gives; the rest are defaults, or set by others."""

    @property
    def outcome(self) -> Outcome:
        """The outcome that the apply would report."""
        if self.stored is None:
            return "created"
        same = self.is_same_spec and (self.stored.labels, self.stored.annotations) == (
            self.labels,
            self.annotations,
        )
        return "unchanged" if same else "configured"

    @property
    def is_same_spec(self) -> bool:
        """Whether the stored spec is already the one that is wanted."""
        return self.stored is not None and canonical_json(self.stored.spec) == canonical_json(
            self.spec
        )

    @property
    def only_protects(self) -> bool:
        """Whether the spec stays and the object is to lose none of its work from now on."""
        return self.is_same_spec and self.annotations.get(PROTECT_ANNOTATION) == "true"

    @property
    def changes(self) -> list[FieldChange]:
        """The fields that would change, in name order."""
        old = self.stored
        return [
            *self._spec_changes(),
            *_differences("metadata.labels", {**old.labels} if old else {}, {**self.labels}),
            *_differences(
                "metadata.annotations",
                {**_visible(old.annotations if old else {})},
                {**_visible(self.annotations)},
            ),
        ]

    def _spec_changes(self) -> list[FieldChange]:
        if self.stored is None:
            return _differences("spec", {}, self.spec)
        before, after, stated = leaves(self.stored.spec), leaves(self.spec), set(self.stated)
        return [
            replace(change, is_default=is_new_default(self.key.kind, path, before, after, stated))
            for change in _differences("spec", self.stored.spec, self.spec)
            if (path := tuple(change.field.split(".")[1:]))
        ]

    @property
    def record(self) -> AppliedRecord:
        """What is remembered of this apply; ``stored`` must exist by then."""
        assert self.stored is not None  # the caller read it back
        return AppliedRecord(
            self.key,
            self.stored.uid,
            self.manager,
            self.asked,
            self.given_labels,
            self.given_annotations,
        )


def intents(
    connection: Connection, loaded: Sequence[LoadedObject], applier: Applier
) -> list[Intent]:
    """Return what an apply of ``loaded`` would store.

    Raises TerminalFailure (Conflict) when it would change what belongs to another manager.
    """
    found = [_intent(connection, item, applier) for item in loaded]
    refused = [text for _, text in found if text]
    if refused and not applier.force:
        raise TerminalFailure("Conflict", "; ".join(refused) + ". To take over: --force-conflicts")
    return [intent for intent, _ in found]


def _intent(
    connection: Connection, item: LoadedObject, applier: Applier
) -> tuple[Intent, str | None]:
    """Return the intent, and what speaks against it when the object belongs to another."""
    key = item.manifest.key
    stored = objects.get(connection, key)
    metadata = item.manifest.metadata
    asked_spec = item.manifest.canonical_spec()
    source = str(item.source) if item.source is not None else None
    origin = {SOURCE_ANNOTATION: source} if source is not None else {}
    asked_annotations = {**metadata.annotations, **origin}
    last = applied.get(connection, key, stored.uid) if stored else None
    if item.is_exported:
        _refuse_unread_files(item, asked_spec, stored)
        kept = stored and (stored.owner is not None or (last is not None and not applier.force))
        if stored is not None and kept and _is_as_printed(item, asked_spec, stored):
            return _standing(key, stored, last), None
    _refuse_owned(item, stored)
    if applier.edits:
        return _edit(item, asked_spec, stored, last, applier), None
    spec, labels, annotations = asked_spec, dict(metadata.labels), asked_annotations
    if stored is not None and last is not None:
        spec = _merged_spec(item, asked_spec, stored, last, applier)
        labels = kept_names(labels, stored.labels, last.labels)
        annotations = kept_names(annotations, stored.annotations, last.annotations)
    intent = Intent(
        key,
        stored,
        spec,
        labels,
        annotations,
        applier.manager,
        asked_fields(asked_spec),
        tuple(metadata.labels),
        tuple(asked_annotations),
        stated=frozenset(stated_fields(item.written["spec"])),
    )
    if stored is None or last is None or last.manager == applier.manager:
        return intent, None
    same_file = _is_same_file(stored.annotations.get(SOURCE_ANNOTATION), source)
    if same_file or applier.force:
        keeps = applier.manager == ANYBODY and not applier.force
        return _with(intent, last.manager if keeps else applier.manager), None
    if not intent.changes:
        return _standing(key, stored, last), None  # both managers want the same: no conflict
    return intent, (
        f"{key} belongs to {described(last.manager)}, applied from "
        f"{stored.annotations.get(SOURCE_ANNOTATION, 'an unknown file')}, and would be changed "
        f"by {described(applier.manager)} from {source or item.document.file}"
    )


def _edit(
    item: LoadedObject,
    asked: JsonObject,
    stored: ObjectRecord | None,
    last: AppliedRecord | None,
    applier: Applier,
) -> Intent:
    """Return the intent to store an object as it is given; what its last apply asked for stays.

    So an apply of its file keeps the edited fields, unless the file sets them.
    """
    metadata = item.manifest.metadata
    before = stored.annotations if stored is not None else {}
    machine = {name: text for name, text in before.items() if name in STORE_ANNOTATIONS}
    intent = Intent(
        item.manifest.key,
        stored,
        asked,
        dict(metadata.labels),
        {**metadata.annotations, **machine},
        applier.manager,
        asked_fields(asked),
        tuple(metadata.labels),
        tuple(metadata.annotations),
        stated=frozenset(leaves(asked)),
    )
    if last is None or last.manager == applier.manager:
        return intent
    return replace(
        intent,
        manager=last.manager,
        asked=last.fields,
        given_labels=last.labels,
        given_annotations=last.annotations,
    )


def _merged_spec(
    item: LoadedObject,
    asked: JsonObject,
    stored: ObjectRecord,
    last: AppliedRecord,
    applier: Applier,
) -> JsonObject:
    together = merged(asked, item.written["spec"], stored.spec, last.fields)
    if together == asked:
        return asked
    try:
        return SPEC_BY_KIND[item.manifest.kind].model_validate(together).canonical()
    except ValidationError as error:
        if applier.force:
            return asked
        raise TerminalFailure(
            "Conflict",
            f"{item.manifest.key}: what others set does not go with this file: "
            f"{error.errors()[0]['msg']}; look with `loopscope diff`, or drop what they set with "
            "--force-conflicts",
        ) from None


def _with(intent: Intent, manager: str) -> Intent:
    return Intent(**{**intent.__dict__, "manager": manager})


def _standing(key: Key, stored: ObjectRecord, last: AppliedRecord | None) -> Intent:
    """Return the intent to leave an object as it is, under its present field manager."""
    return Intent(
        key,
        stored,
        stored.spec,
        stored.labels,
        stored.annotations,
        last.manager if last else ANYBODY,
        last.fields if last else {},
        last.labels if last else (),
        last.annotations if last else (),
        stands=True,
    )


def _is_as_printed(item: LoadedObject, asked: JsonObject, stored: ObjectRecord) -> bool:
    """Whether what ``get`` printed is what stands now."""
    metadata = item.manifest.metadata
    same_spec = canonical_json(asked) == canonical_json(stored.spec)
    return same_spec and (metadata.labels, metadata.annotations) == (
        stored.labels,
        as_written({"annotations": {**stored.annotations}})["annotations"],
    )


def _refuse_unread_files(
    item: LoadedObject, asked: JsonObject, stored: ObjectRecord | None
) -> None:
    """Raise InvalidSpec when ``file`` was edited in an export and the texts beside it were not.

    The texts would be taken, and the edit lost without a word.
    """
    old, new = leaves(stored.spec if stored else {}), leaves(asked)
    problems = [
        item.problem(
            ".".join(("spec", *path)),
            f"the texts beside it are those of {old.get(path, 'before')}; remove texts (and "
            f"counted), and {value} is read",
        )
        for path, value in new.items()
        if old.get(path) != value
        if (texts := _texts_beside(path)) in new and new[texts] == old.get(texts)
    ]
    if problems:
        raise InvalidSpec(problems)


def _texts_beside(path: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the place of the texts that a field says how to read; None for any other field."""
    place = next((i for i, step in enumerate(path) if step in READING_FIELDS), None)
    return None if place is None else (*path[:place], "texts")


def _refuse_owned(item: LoadedObject, stored: ObjectRecord | None) -> None:
    """Raise TerminalFailure for an object that its owner would change back, or make itself."""
    if stored is not None and stored.owner is not None:
        raise objects.owned_by_another(stored, None)
    owners = item.written["metadata"].get("ownerReferences")
    if stored is None and item.is_exported and owners:
        raise TerminalFailure(
            "OwnedByAnother",
            f"{item.manifest.key} was made by its owner (metadata.ownerReferences) and is gone; "
            "apply the owner, or remove ownerReferences to make an object of its own",
        )


def _is_same_file(before: str | None, now: str | None) -> bool:
    if before is None or now is None:
        return False
    return before == now or os.path.realpath(before) == os.path.realpath(now)


def _visible(annotations: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in annotations.items() if name != SOURCE_ANNOTATION}


def _differences(root: str, before: Json, after: Json) -> list[FieldChange]:
    return [
        FieldChange(".".join((root, *one.path)), one.before, one.after)
        for one in differences(before, after)
    ]
