"""Text on its way into a database: bytes that are not UTF-8 are escaped.

A path or a message of the system may hold them; databases refuse them, and JSON would pass them on
to its readers. Every statement of an engine passes here.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from sqlalchemy import Connection, Engine, event

from loopscope.specs.json_values import without_nan
from loopscope.specs.legible import encodable, is_encodable

Row = dict[str, object] | tuple[object, ...]
"""The values of one execution, by name or in order, as the driver takes them."""


def keep_to_utf8(engine: Engine) -> None:
    """Let every statement of this engine store and look for UTF-8 only."""
    _listen(engine, is_encodable, encodable)


def without_nul(engine: Engine) -> None:
    """Let every statement of this engine write the sign of number 0 out; text may not hold it."""
    _listen(engine, lambda text: "\0" not in text, lambda text: text.replace("\0", "\\x00"))


def json_text(value: object) -> str:
    """Return JSON of which every string can be written as UTF-8 once it is read again."""
    text = json.dumps(value)
    if "\\ud" not in text:  # else half a pair, or a whole one: an emoji
        return text
    plain = json.dumps(value, ensure_ascii=False)
    return text if is_encodable(plain) else encodable(plain, backslash="\\\\")


def strict_json_text(value: object) -> str:
    """Return the same with null for NaN and infinities, where a database refuses them."""
    text = json_text(value)
    return json_text(without_nan(value)) if "NaN" in text or "Infinity" in text else text


def _listen(engine: Engine, is_fine: Callable[[str], bool], clean: Callable[[str], str]) -> None:
    """Let the texts of every execution that are not fine be written another way."""

    def cleaned(value: object) -> object:
        return clean(value) if isinstance(value, str) and not is_fine(value) else value

    def row_of(row: Row) -> Row:
        if isinstance(row, dict):
            return {name: cleaned(value) for name, value in row.items()}
        return tuple(cleaned(value) for value in row)

    def before(
        _connection: Connection,
        _cursor: object,
        statement: str,
        parameters: Row | list[Row],
        _context: object,
        _many: bool,
    ) -> tuple[str, Row | list[Row]]:
        rows = parameters if isinstance(parameters, list) else [parameters]
        values = (one for row in rows for one in (row.values() if isinstance(row, dict) else row))
        if all(is_fine(value) for value in values if isinstance(value, str)):
            return statement, parameters
        written = [row_of(row) for row in rows]
        return statement, written if isinstance(parameters, list) else written[0]

    event.listen(engine, "before_cursor_execute", before, retval=True)
