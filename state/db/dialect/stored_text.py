"""Text on its way into a database: bytes that are not UTF-8 are escaped.

A path or a message of the system may hold them; databases refuse them, and JSON would pass them on
to its readers. Every statement of an engine passes here.
"""

from __future__ import annotations

import json

from sqlalchemy import Connection, Engine, event

from loopscope.specs.legible import encodable, is_encodable

Row = dict[str, object] | tuple[object, ...]
"""The values of one execution, by name or in order, as the driver takes them."""


def keep_to_utf8(engine: Engine) -> None:
    """Let every statement of this engine store and look for UTF-8 only."""
    event.listen(engine, "before_cursor_execute", _only_what_can_be_stored, retval=True)


def json_text(value: object) -> str:
    """Return JSON of which every string can be written as UTF-8 once it is read again."""
    text = json.dumps(value)
    if "\\ud" not in text:  # else half a pair, or a whole one: an emoji
        return text
    plain = json.dumps(value, ensure_ascii=False)
    return text if is_encodable(plain) else encodable(plain, backslash="\\\\")


def _only_what_can_be_stored(
    _connection: Connection,
    _cursor: object,
    statement: str,
    parameters: Row | list[Row],
    _context: object,
    _many: bool,
) -> tuple[str, Row | list[Row]]:
    rows = parameters if isinstance(parameters, list) else [parameters]
    values = (value for row in rows for value in (row.values() if isinstance(row, dict) else row))
    if all(is_encodable(value) for value in values if isinstance(value, str)):
        return statement, parameters
    clean = [_stored_row(row) for row in rows]
    return statement, clean if isinstance(parameters, list) else clean[0]


def _stored_row(row: Row) -> Row:
    if isinstance(row, dict):
        return {name: _stored(value) for name, value in row.items()}
    return tuple(_stored(value) for value in row)


def _stored(value: object) -> object:
    return encodable(value) if isinstance(value, str) else value
