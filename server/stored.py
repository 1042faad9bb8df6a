"""Objects as the API shows them whole, made from the text that is stored.

A list of ten thousand objects is mostly specs and statuses, which are JSON where they lie. Read as
values and written again they take five times as long, and a multiple of their memory. What comes
out says the same as ``documents.whole``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted

from loopscope.server.answers import encoded
from loopscope.server.documents import managed_fields, seen, whole
from loopscope.specs.keys import API_VERSION
from loopscope.state.db import applied
from loopscope.state.db.connection import Connection
from loopscope.state.records import AppliedRecord, ObjectText
from loopscope.views.documents.objects import owner_document
from loopscope.views.numbers import iso
from loopscope.views.present import is_controlled

_READY = re.compile(
    r'\{"observedGeneration": (\d+), "conditions": \[\{"type": "Ready", "status": "True", '
    r'"reason": "\w*", "message": "(?:[^"\\]|\\.)*", "observedGeneration": (\d+),'
)
_TIME = re.compile(r'"lastTransitionTime": ([^,}]+)')
"""Only as a key: inside of a string a quote has a backslash before it."""


def stored_wholes(connection: Connection, texts: Sequence[ObjectText]) -> list[bytes]:
    """Return each object as the JSON of its document, as it is now.

    They are of one kind and in key order.
    """
    if not texts:
        return []
    controlled = is_controlled(connection)
    plain = [controlled or _is_ready(one) for one in texts]
    asked = applied.between(connection, texts[0].key, texts[-1].key)
    others = [one.record for one, is_plain in zip(texts, plain, strict=True) if not is_plain]
    slow = iter(seen(connection, others, with_owned=False))
    made = [
        _document(one, asked.get(one.uid)) if is_plain else encoded(whole(next(slow)))
        for one, is_plain in zip(texts, plain, strict=True)
    ]
    return _number_safe(made)


def _is_ready(one: ObjectText) -> bool:
    """Whether an object is surely Ready, so that no job changes what it shows."""
    found = _READY.match(one.status)
    return found is not None and int(found[1]) == int(found[2]) == one.generation


def _document(one: ObjectText, asked: AppliedRecord | None) -> bytes:
    status = _TIME.sub(_dated, one.status)
    metadata = (
        f'{{"name": {quoted(one.key.name)}, "namespace": {quoted(one.key.namespace)}, '
        f'"uid": {quoted(one.uid)}, "labels": {one.labels}, '
        f'"annotations": {one.annotations}, "generation": {one.generation}, '
        f'"resourceVersion": "{one.resource_version}", '
        f'"creationTimestamp": {_date(one.creation_timestamp)}{_rest_of_metadata(one, asked)}}}'
    )
    return (
        f'{{"apiVersion": "{API_VERSION}", "kind": "{one.key.kind}", "metadata": {metadata}, '
        f'"spec": {one.spec}, "status": {status}}}'
    ).encode()


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


def _dated(found: re.Match[str]) -> str:
    return f'"lastTransitionTime": {_date(float(found[1]))}'


@lru_cache(maxsize=4096)
def _date(seconds: float) -> str:
    return json.dumps(iso(seconds))


def _number_safe(documents: list[bytes]) -> list[bytes]:
    """Return JSON with null for NaN and infinities, which it has not and Python writes.

    All of it is looked through at once: most documents hold none.
    """
    all_ = b"".join(documents)
    if b"NaN" not in all_ and b"Infinity" not in all_:
        return documents
    return [encoded(json.loads(one)) for one in documents]
