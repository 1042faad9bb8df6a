"""Label selectors, as ``kubectl -l`` reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Selector = Callable[[Mapping[str, str]], bool]

_KEY = r"[A-Za-z0-9][-A-Za-z0-9_./]*"
_VALUE = r"[-A-Za-z0-9_.]*"
_TERMS = (
    (re.compile(rf"({_KEY})\s*(==?|!=)\s*({_VALUE})"), "equality"),
    (re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)"), "set"),
    (re.compile(rf"(!?)\s*({_KEY})"), "existence"),
)


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
