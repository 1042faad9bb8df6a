"""Names from outside, made fit to be written down and read.

A file's name may hold any byte but NUL and ``/``. What is not UTF-8 comes as half a surrogate pair,
which neither the database nor a terminal takes; a line end or an escape would write what it likes.
"""

from __future__ import annotations

import re

_HALF_PAIR = re.compile("[\ud800-\udfff]")


def is_encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8."""
    return text.isascii() or _HALF_PAIR.search(text) is None


def encodable(text: str, backslash: str = "\\") -> str:
    r"""Return a text in which each byte that is not UTF-8 is written as ``\xff``."""
    if text.isascii():
        return text
    return _HALF_PAIR.sub(lambda found: backslash + _word(ord(found[0])), text)


def legible(name: str) -> str:
    """Return a name on one line, in which each sign that is not printable is written out."""
    shown = encodable(name)
    if shown.isprintable():
        return shown
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in shown)


def _word(sign: int) -> str:
    return f"x{sign - 0xDC00:02x}" if 0xDC80 <= sign <= 0xDCFF else f"u{sign:04x}"
