"""Numbers that YAML 1.1, which the parser speaks, reads in another way than people and YAML 1.2."""

from __future__ import annotations

import re

CHARACTERS_MAX = 64
"""Longer texts are not taken for numbers."""
_LEADING_ZERO = re.compile(r"([-+]?)0[0_]*([0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?)")
_OCTAL = re.compile(r"([-+]?)0o([0-7_]+)")
_BASE_60 = re.compile(r"([-+]?)([0-9][0-9_]*)((?::[0-5]?[0-9])+)(\.[0-9_]*)?")
_EXPONENT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+")
_SIGN_AND_DOT = re.compile(r"[-+]\.[0-9]+")


def misread(written: str) -> str | None:
    """Return what to write in place of a number that means two things; None for anything else.

    ``010`` is 8 in YAML 1.1 and 10 in YAML 1.2, ``0o10`` a text or 8, ``1:30`` is 90 or a text.
    """
    if len(written) > CHARACTERS_MAX:
        return None
    if match := _LEADING_ZERO.fullmatch(written):
        return _advice(written, "a leading zero", f"{match[1]}{match[2]}")
    if match := _OCTAL.fullmatch(written):
        digits = match[2].replace("_", "")
        return _advice(written, "a number in base 8", f"{match[1]}{int(digits or '0', 8)}")
    if match := _BASE_60.fullmatch(written):
        whole = 0
        for part in (match[2].replace("_", "") + match[3]).split(":"):
            whole = whole * 60 + int(part)
        value = f"{match[1]}{whole}{match[4] or ''}"
        return _advice(written, "a number in base 60", value)
    return None


def is_number(written: str) -> bool:
    """Whether a plain text is a number that YAML 1.1 takes for a text: ``3e-1`` or ``-.5``."""
    if len(written) > CHARACTERS_MAX:
        return False
    return any(form.fullmatch(written) for form in (_EXPONENT, _SIGN_AND_DOT))


def _advice(written: str, found: str, plain: str) -> str:
    return f"found {found}, {written}; write {plain}, or put it in quotes if it is a text"
