"""The page that ``explain`` prints about a field, from the field's own description."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from loopscope.context import CommandError
from loopscope.specs.keys import API_VERSION
from loopscope.specs.reference import FieldFacts, kind_facts
from loopscope.specs.suggest import closest, did_you_mean

WIDTH = 80


def page_of(kind: str, steps: list[str], *, recursive: bool = False) -> Iterator[str]:
    """Yield the lines that ``explain`` prints. Raises CommandError if the field does not exist."""
    facts = _find(kind_facts(kind), steps)
    yield f"KIND:     {kind}"
    yield f"VERSION:  {API_VERSION}"
    if steps:
        yield f"FIELD:    {'.'.join(steps)}"
    yield ""
    if not recursive:
        yield from _page(facts)
        return
    for place, inner in facts.below():
        yield f"{'  ' * (len(place) - 1)}{inner.name} <{_type(inner)}>"


def _find(facts: FieldFacts, steps: list[str]) -> FieldFacts:
    for index, step in enumerate(steps):
        found = facts.field(step)
        if found is None:
            raise CommandError(_unknown(facts, step, ".".join(steps[:index]) or facts.name))
        facts = found
    return facts


def _unknown(facts: FieldFacts, step: str, place: str) -> str:
    if not facts.fields:
        return f"{place} has no fields, so there is no {step!r} in it"
    names = [field.name for field in facts.fields]
    if closest(step, names) is None:
        deeper = [".".join(path) for path, field in facts.below() if field.name == step]
        if deeper:
            return f"{place} has no field {step!r}; did you mean {' or '.join(deeper)}?"
    return f"{place} has no field {step!r}{did_you_mean(step, names)}"


def _page(facts: FieldFacts) -> Iterator[str]:
    rows = {
        "Type": _type(facts),
        "Default": facts.default,
        "Bounds": facts.bounds,
        "Unit": facts.unit,
    }
    for name, value in rows.items():
        if value:
            yield f"  {name + ':':9} {_terminal(value)}"
    yield "\nDESCRIPTION:"
    yield from _wrapped(facts.meaning, 4)
    if facts.about != facts.meaning and facts.about:
        yield from _wrapped(facts.about, 4)
    if facts.fields:
        yield "\nFIELDS:"
    for field in facts.fields:
        default = "" if field.default == "none" else f"  {_terminal(field.default)}"
        unit = f"  ({_terminal(field.unit)})" if field.unit else ""
        yield f"  {field.name} <{_type(field)}>{default}{unit}"
        yield from _wrapped(field.meaning, 6)


def _type(facts: FieldFacts) -> str:
    return f"{'one of ' if facts.type.startswith('`') else ''}{_terminal(facts.type)}"


def _wrapped(text: str, indent: int) -> list[str]:
    space = " " * indent
    return textwrap.wrap(
        _terminal(text), WIDTH, initial_indent=space, subsequent_indent=space,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _terminal(text: str) -> str:
    return text.replace("`", "")
