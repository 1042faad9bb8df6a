"""A set of texts as it is written becomes one with the texts that it asks for."""

from __future__ import annotations

from typing import Any

from loopscope.specs.texts.choosing import distinct, sampled
from loopscope.specs.texts.same import normalised
from loopscope.specs.texts.source import ReadTexts, TextFiles, TextSource


def is_value_or_values(asked: Any) -> bool:
    """Whether this may stand for a column in ``where``: a value, or a list of some."""
    values = asked if isinstance(asked, list | tuple) else [asked]
    return bool(values) and all(isinstance(one, str | int | float | bool) for one in values)


_NAMES = ("column", "revision", "dataFiles", "config", "split")


def is_readable(data: dict[str, Any]) -> bool:
    """Whether what says how texts are read is of the right types; else its own checks say so."""
    templates, lists, where = (data.get(name) for name in ("templates", "lists", "where"))
    words = [templates, *lists.values()] if isinstance(lists, dict) else [templates]
    sample = data.get("sample")
    return (
        isinstance(lists, dict | None)
        and all(isinstance(data.get(name), str | None) for name in _NAMES)
        and (where is None or (isinstance(where, dict) and bool(where)
             and all(map(is_value_or_values, where.values()))))
        and all(found is None or _is_list_of_texts(found) for found in words)
        and (sample is None or (isinstance(sample, dict) and _is_count(sample.get("size"))
             and _is_count(sample.get("seed", 0))))
    )  # fmt: skip


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


def _is_count(value: Any) -> bool:
    """Whether a spec takes this as a whole number: 3, and 3.0 as well."""
    return type(value) in (int, float) and value >= 0 and value == value // 1


def with_texts(data: dict[str, Any], source: TextSource, files: TextFiles) -> dict[str, Any]:
    """Return a set of texts with those that its source gives, and the labels of its groups."""
    found = source.read(data, files)
    matching = len(found.texts)
    taken = found if found.read is None else distinct(found, normalised)
    kept = len(taken.texts)
    sample = data.get("sample")
    if sample is not None:
        seed = int(sample.get("seed", 0))
        taken = sampled(taken, int(sample["size"]), seed, normalised)
    given = {**data, "texts": taken.texts}
    if found.resolved is not None:
        given["resolved"] = found.resolved
    if found.read is not None or sample is not None:
        given["counted"] = {
            "read": matching if found.read is None else found.read,
            "matching": matching,
            "duplicates": matching - kept,
            "taken": len(taken.texts),
        }
    return _with_labels(given, taken)


def _with_labels(data: dict[str, Any], found: ReadTexts) -> dict[str, Any]:
    groups = data.get("groups")
    column = groups.get("column") if isinstance(groups, dict) else None
    if not isinstance(column, str) or not isinstance(groups, dict) or groups.get("labels"):
        return data
    if column not in found.columns:
        known = f"; known: {', '.join(found.columns)}" if found.columns else ""
        raise ValueError(f"groups.column {column!r} is no column of these texts{known}")
    return {**data, "groups": {**groups, "labels": found.columns[column]}}
