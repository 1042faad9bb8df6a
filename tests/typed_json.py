"""JSON held against the type that it is declared to have: key for key, nothing missing or more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

ANY_JSON = {"Json": object}
"""JSON of no declared shape, which ``get_type_hints`` could not follow into itself."""


def misfits(value: object, declared: Any, place: str = "$") -> list[str]:
    """Return every place where a value is not of its declared type, in words; none if it fits."""
    return list(_misfits(value, declared, place))


def _misfits(value: object, declared: Any, place: str) -> Iterator[str]:
    origin, arguments = get_origin(declared), get_args(declared)
    if is_typeddict(declared):
        yield from _keys(value, declared, place)
    elif origin in (Union, UnionType):
        found = [misfits(value, option, place) for option in arguments]
        if all(found):
            yield from min(found, key=len)
    elif origin is Literal:
        if value not in arguments:
            yield f"{place}: {value!r} is none of {arguments}"
    elif origin in (list, Sequence):
        if not isinstance(value, list):
            yield f"{place}: {value!r} is no list"
            return
        for number, item in enumerate(value):
            yield from _misfits(item, arguments[0], f"{place}[{number}]")
    elif origin in (dict, Mapping):
        if not isinstance(value, dict):
            yield f"{place}: {value!r} is no object"
            return
        for name, item in value.items():
            yield from _misfits(item, arguments[1], f"{place}.{name}")
    elif declared is float:
        if type(value) not in (int, float):
            yield f"{place}: {value!r} is no number"
    elif declared in (int, str, bool, None, NoneType):
        wanted = NoneType if declared is None else declared
        if type(value) is not wanted:
            yield f"{place}: {value!r} is not {wanted.__name__}"
    elif declared is not object:
        raise TypeError(f"{place}: {declared} is no type of JSON")


def required_keys(declared: Any) -> set[str]:
    """Return the keys that a value of a TypedDict cannot be without."""
    hints = get_type_hints(declared, localns=ANY_JSON, include_extras=True)
    always = declared.__total__
    return {name for name, hint in hints.items() if always and get_origin(hint) is not NotRequired}


def _keys(value: object, declared: Any, place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{place}: {value!r} is no object"
        return
    hints = get_type_hints(declared, localns=ANY_JSON)
    for name in sorted(required_keys(declared) - value.keys()):
        yield f"{place}.{name} is missing"
    for name in sorted(value.keys() - hints.keys()):
        yield f"{place}.{name} is not declared"
    for name in sorted(hints.keys() & value.keys()):
        yield from _misfits(value[name], hints[name], f"{place}.{name}")
