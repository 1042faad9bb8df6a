r"""``-o jsonpath=``: the part of kubectl's templates that scripts use.

Text outside of braces stands for itself. In braces: a path (``{.status.summary.gate}``), a text
(``{"\n"}``), or ``{range .items[*]}`` … ``{end}``. A path has fields (``.a``, ``['a.b']``), places
(``[0]``, ``[-1]``), everything (``[*]``, ``.*``) and filters (``[?(@.type=="Ready")]``, ``!=``).
A backslash takes the meaning from the sign after it: ``.a\.b/c`` and ``['a\.b/c']`` are one field.
A field that is not there is left out; a place that is not there is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Step = Callable[[Any], Iterator[Any]]

_PIECE = re.compile(r"\{((?:\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^{}\"'])*)\}|([^{}]+)")
_FIELD = r"(?:\\.|[^\s.,*()\[\]{}$@\\'\"=!<>|])+"
_STEP = re.compile(
    rf"\.({_FIELD})|\[['\"]([^'\"]+)['\"]\]|\[(-?\d+)\]|(\[\*\]|\.\*)"
    rf"|\[\?\(\s*@((?:\.{_FIELD})+)\s*(==|!=)\s*(\"[^\"]*\"|'[^']*'|[^\s)]+)\s*\)\]"
)
_ESCAPED = re.compile(r"\\(.)")


def render(template: str, document: Any) -> str:
    """Return what a template makes of a document.

    Raises ValueError when it cannot be read, LookupError when a place in a list is not there.
    """
    pieces = list(_pieces(template))
    text, rest = _block(pieces, document)
    if rest:
        raise ValueError("{end} without {range}")
    return text


def _pieces(template: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(template):
        match = _PIECE.match(template, place)
        if match is None:
            raise ValueError(f"{template[place : place + 20]!r}: a brace is not closed")
        place = match.end()
        yield ("text", match[2]) if match[1] is None else ("code", match[1].strip())


def _block(pieces: Sequence[tuple[str, str]], root: Any) -> tuple[str, list[tuple[str, str]]]:
    """Return the text up to the block's end, and the pieces from its ``end`` on."""
    parts: list[str] = []
    rest = list(pieces)
    while rest:
        form, code = rest[0]
        if form == "code" and code == "end":
            return "".join(parts), rest
        rest = rest[1:]
        if form == "text":
            parts.append(code)
        elif code.startswith("range "):
            inner = rest
            rest = _block(inner, None)[1]
            if not rest:
                raise ValueError("{range} without {end}")
            rest = rest[1:]
            parts.extend(_block(inner, item)[0] for item in find(code[6:].strip(), root))
        elif code[:1] in ("'", '"'):
            parts.append(json.loads(code) if code[0] == '"' else code[1:-1])
        else:
            parts.append(" ".join(text_of(value) for value in find(code, root)))
    return "".join(parts), []


def find(path: str, root: Any) -> list[Any]:
    """Return the values at a path. Raises ValueError when it is not one, LookupError as render."""
    path = path.removeprefix("$").removeprefix("@")
    if path and path[0] not in ".[":
        path = f".{path}"
    values, place = [root], 0
    while path[place:] not in ("", "."):
        match = _STEP.match(path, place)
        if match is None:
            raise ValueError(f"{path[place:]!r} in {path!r} is no path")
        place = match.end()
        values = [found for value in values for found in _step(match, value)]
    return values


def _step(match: re.Match[str], value: Any) -> Iterator[Any]:
    if (written := match[1] or match[2]) is not None:
        name = _ESCAPED.sub(r"\1", written)
        if isinstance(value, dict) and name in value:
            yield value[name]
    elif match[3] is not None:
        yield _item(value, int(match[3]))
    elif match[4] is not None:
        yield from (
            value.values()
            if isinstance(value, dict)
            else (value if isinstance(value, list) else ())
        )
    else:
        wanted = match[7].strip("\"'")
        for item in value if isinstance(value, list) else ():
            same = any(text_of(found) == wanted for found in find(match[5], item))
            if same is (match[6] == "=="):
                yield item


def _item(value: Any, place: int) -> Any:
    if not isinstance(value, list):
        raise LookupError(f"[{place}] is asked of what is no list: {text_of(value)[:60]}")
    if not -len(value) <= place < len(value):
        raise LookupError(f"array index out of bounds: index {place}, length {len(value)}")
    return value[place]


def text_of(value: Any) -> str:
    """Return a value as a template prints it: a text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
