"""Three-way merge of specs: what the file asked for last, what it asks for now, what stands.

A field that another manager set stays, unless the file sets it too; a field that the file no longer
sets falls back to its default. Lists are one value: they are not merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from loopscope.specs.canonical import digest
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.texts import NAMING_FIELDS

Leaves = dict[tuple[str, ...], Json]


def leaves(value: Json, place: tuple[str, ...] = ()) -> Leaves:
    """Return the fields of a spec by their path; lists and empty mappings are values."""
    if isinstance(value, dict) and value:
        return {
            inner: leaf
            for name, item in value.items()
            for inner, leaf in leaves(item, (*place, str(name))).items()
        }
    return {place: value}


class Difference(NamedTuple):
    """A field that differs between two values; None stands for *not there*."""

    path: tuple[str, ...]
    before: Json
    after: Json


def differences(before: Json, after: Json) -> list[Difference]:
    """Return the fields in which two specs, or parts of them, differ, in the order of their names.

    Lists and empty mappings are values; of the whole itself nothing is said.
    """
    old, new = leaves(before), leaves(after)
    return [
        Difference(path, old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys())
        if path and old.get(path) != new.get(path)
    ]


def asked_fields(asked: JsonObject) -> dict[str, str]:
    """Return what an apply remembers of a canonical spec: a digest of each field's value."""
    return {".".join(path): digest(value)[:16] for path, value in leaves(asked).items()}


def merged(
    asked: JsonObject,
    written: Json,
    live: JsonObject,
    last: Mapping[str, str],
) -> JsonObject:
    """Return the spec to store: ``asked``, with the fields that others set in ``live``.

    ``asked`` is the file's spec with its defaults, ``written`` the same as it stands in the
    file, ``last`` what the last apply remembered. The answer may be invalid where fields of
    two managers exclude one another: validate it.
    """
    now, before = leaves(asked), leaves(live)
    stated = stated_fields(written)
    fresh = asked_fields(asked)
    for path in _set_by_others(before, last):
        name = ".".join(path)
        if path in stated or fresh.get(name) != last.get(name):
            continue  # the file sets it, or did until now
        if path in before:
            now[path] = before[path]
        else:
            now.pop(path, None)
    return _nested(now)


def kept_names(
    asked: Mapping[str, str], live: Mapping[str, str], last: Iterable[str]
) -> dict[str, str]:
    """Return labels or annotations to store: those asked for, and those that others added."""
    mine = set(last)
    return {**{name: value for name, value in live.items() if name not in mine}, **asked}


def _set_by_others(live: Leaves, last: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    for path, value in live.items():
        if last.get(".".join(path)) != digest(value)[:16]:
            yield path
    names = {".".join(path) for path in live}
    for name in last:
        if name not in names:
            yield tuple(name.split("."))


def stated_fields(written: Json) -> set[tuple[str, ...]]:
    """Return the fields that a file gives; what names a set of texts stands for them, too."""
    found = set(leaves(written))
    return found | {(*path[:-1], "texts") for path in found if path and path[-1] in NAMING_FIELDS}


def _nested(flat: Leaves) -> JsonObject:
    result: JsonObject = {}
    for path, value in flat.items():
        place = result
        for name in path[:-1]:
            inside = place.setdefault(name, {})
            assert isinstance(inside, dict), "a field is a value or holds fields, never both"
            place = inside
        place[path[-1]] = value
    return result


def merge_patched(value: Json, patch: Json) -> Json:
    """Return a value with a JSON merge patch applied (RFC 7386): null takes a field away."""
    if not isinstance(patch, dict):
        return patch
    made = dict(value) if isinstance(value, dict) else {}
    for name, inner in patch.items():
        if inner is None:
            made.pop(name, None)
        else:
            made[name] = merge_patched(made.get(name), inner)
    return made
