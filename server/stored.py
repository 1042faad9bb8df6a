"""Objects as the API shows them whole, made from the text that is stored.

A list of ten thousand objects is mostly specs and statuses, which are JSON where they lie. Read as
values and written again they take five times as long, and a multiple of their memory. What comes
out says the same as ``documents.whole``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted

from loopscope.server.answers import encoded
from loopscope.server.documents import managed_fields, seen, whole
from loopscope.specs.keys import API_VERSION
from loopscope.state.db import applied
from loopscope.state.db.connection import Connection
from loopscope.state.records import AppliedRecord, ObjectRecord, ObjectText
from loopscope.views.documents.objects import owner_document
from loopscope.views.numbers import iso

_TIME = '"lastTransitionTime": '
"""Only as a key: inside of a string a quote has a backslash before it."""


def stored_list(connection: Connection, texts: Sequence[ObjectText]) -> bytes:
    """Return objects as the items of a JSON list, as they are now; of one kind, in key order."""
    made = _documents(connection, texts)
    items = ", ".join(made)
    return (items if _has_safe_numbers(items) else ", ".join(map(_number_safe, made))).encode()


def stored_wholes(connection: Connection, texts: Sequence[ObjectText]) -> list[str]:
    """Return the same one by one."""
    made = _documents(connection, texts)
    return made if _has_safe_numbers("".join(made)) else list(map(_number_safe, made))


def _documents(connection: Connection, texts: Sequence[ObjectText]) -> list[str]:
    if not texts:
        return []
    asked = applied.between(connection, texts[0].key, texts[-1].key)
    made: list[str] = []
    others: dict[int, ObjectRecord] = {}
    for number, one in enumerate(texts):
        pieces = one.status.split(_TIME)
        if not _is_ready(pieces[0], one.generation):
            others[number] = one.record
        made.append(_document(one, pieces, asked.get(one.uid)))
    slow = seen(connection, list(others.values()), with_owned=False)
    for number, shown in zip(others, slow, strict=True):
        made[number] = encoded(whole(shown)).decode()
    return made


def _is_ready(beginning: str, generation: int) -> bool:
    """Whether an object is surely Ready, so that nothing else changes what it shows.

    By what its status is up to the first time, which ends its first condition.
    """
    observed = f'"observedGeneration": {generation}, '
    ready = f'{{{observed}"conditions": [{{"type": "Ready", "status": "True", '
    return beginning.startswith(ready) and beginning.endswith(f'", {observed}')


def _document(one: ObjectText, status: list[str], asked: AppliedRecord | None) -> str:
    """Return an object as its document; its status comes cut at each time."""
    (kind, namespace, name, uid, generation, version, spec, _, labels, annotations, *others) = one
    finalizers, created, deleted, owner, *_ = others
    plain = finalizers == "[]" and deleted is None and owner is None and asked is None
    rest = "" if plain else _rest_of_metadata(one, asked)
    return (
        f'{{"apiVersion": "{API_VERSION}", "kind": "{kind}", "metadata": {{"name": {quoted(name)}, '
        f'"namespace": {quoted(namespace)}, "uid": {quoted(uid)}, "labels": {labels}, '
        f'"annotations": {annotations}, "generation": {generation}, '
        f'"resourceVersion": "{version}", "creationTimestamp": {_date(created)}{rest}}}, '
        f'"spec": {spec}, "status": {_dated(status)}}}'
    )


def _rest_of_metadata(one: ObjectText, asked: AppliedRecord | None) -> str:
    parts: dict[str, object] = {}
    if one.deletion_timestamp is not None:
        parts["deletionTimestamp"] = iso(one.deletion_timestamp)
    if one.finalizers != "[]":
        parts["finalizers"] = json.loads(one.finalizers)
    if one.owner is not None:
        parts["ownerReferences"] = [owner_document(one.owner, one.owner_uid)]
    if asked is not None:
        parts["managedFields"] = [managed_fields(asked)]
    return f", {json.dumps(parts)[1:-1]}" if parts else ""


def _dated(status: list[str]) -> str:
    """Return a status that was cut at each time with its times as dates."""
    parts = status[:1]
    for piece in status[1:]:
        time, end, rest = piece.partition("}")
        parts += (_TIME, _date_before(time), end, rest)
    return "".join(parts)


@lru_cache(maxsize=4096)
def _date_before(text: str) -> str:
    """Return a text that begins with a time, and is the time as a rule, with the date of it."""
    time, comma, rest = text.partition(",")
    return _date(float(time)) + comma + rest


@lru_cache(maxsize=4096)
def _date(seconds: float) -> str:
    return json.dumps(iso(seconds))


def _has_safe_numbers(text: str) -> bool:
    """Whether JSON surely holds no NaN or infinity; most is looked through at once."""
    return "NaN" not in text and "Infinity" not in text


def _number_safe(document: str) -> str:
    """Return JSON with null for NaN and infinities, which it has not and Python writes."""
    return encoded(json.loads(document)).decode()
