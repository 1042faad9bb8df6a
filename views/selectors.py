"""Label and field selectors, as ``kubectl -l`` and ``--field-selector`` read them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Selector = Callable[[Mapping[str, str]], bool]

_KEY = r"[A-Za-z0-9][-A-Za-z0-9_./]*"
_VALUE = r"[-A-Za-z0-9_.]*"
_TERMS = (
    (re.compile(rf"({_KEY})\s*(==?|!=)\s*({_VALUE})"), "equality"),
    (re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)"), "set"),
    (re.compile(rf"(!?)\s*({_KEY})"), "existence"),
)
_FIELD_TERM = re.compile(r"([A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)\s*(==?|!=)\s*([^,=!]*)")


def parse_selector(text: str) -> Selector:
    """Return whether labels fit ``a=b,c!=d,e in (f,g),h notin (i),j,!k``: all terms must.

    Raises ValueError for anything else.
    """
    terms = [_term(part.strip()) for part in re.split(r",(?![^(]*\))", text) if part.strip()]
    return lambda labels: all(term(labels) for term in terms)


def _term(text: str) -> Selector:
    for pattern, form in _TERMS:
        match = pattern.fullmatch(text)
        if match is None:
            continue
        if form == "existence":
            return _existence(match[2], wanted=not match[1])
        values = {match[3]} if form == "equality" else _values(match[3])
        return _one_of(match[1], values, wanted=match[2] in ("=", "==", "in"))
    raise ValueError(
        f"{text!r} is no selector; expected name=value, name!=value, name in (a,b), "
        "name notin (a,b), name or !name"
    )


def _values(text: str) -> set[str]:
    return {value.strip() for value in text.split(",")}


def _one_of(name: str, values: set[str], *, wanted: bool) -> Selector:
    """As in Kubernetes, an object without the label fits ``!=`` and ``notin``."""
    return lambda labels: (labels.get(name) in values) is wanted


def _existence(name: str, *, wanted: bool) -> Selector:
    return lambda labels: (name in labels) is wanted


class FieldTerm(NamedTuple):
    """One term of a field selector: what stands at a place of a document, or must not."""

    path: tuple[str, ...]
    value: str
    wanted: bool

    def fits(self, document: Mapping[str, Any]) -> bool:
        """Whether a document has the value there, or has it not, as the term asks.

        A field that is not there counts as empty; numbers and truths are compared as JSON has them.
        """
        found: Any = document
        for step in self.path:
            found = found.get(step) if isinstance(found, Mapping) else None
        return (_as_text(found) == self.value) is self.wanted


def parse_field_selector(text: str) -> list[FieldTerm]:
    """Return the terms of ``metadata.name=a,status.artifact.stage!=capture``: all must fit.

    Raises ValueError for anything else.
    """
    return [_field_term(part.strip()) for part in text.split(",") if part.strip()]


def names_instead(path: Sequence[str]) -> list[str]:
    """Return what stands beside a place that no object has below ``metadata`` and ``status``.

    Empty where an object may have the field; what a spec has differs from kind to kind.
    """
    from loopscope.specs.status import StatusJson  # late: most commands select by no field
    from loopscope.views.documents.objects import Metadata

    places = {"metadata": Metadata.__annotations__, "status": StatusJson.__annotations__}
    names = list(places.get(path[0], ()))
    return names if names and len(path) > 1 and path[1] not in names else []


def _field_term(text: str) -> FieldTerm:
    match = _FIELD_TERM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no field selector; expected field=value or field!=value")
    return FieldTerm(tuple(match[1].split(".")), match[3], match[2] != "!=")


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
