"""Messages for texts that are not YAML, with what to do."""

from __future__ import annotations

import codecs

import yaml
from yaml.reader import ReaderError

from loopscope.specs.errors import Problem

NOT_YAML = "not valid YAML: "
_BEGINNINGS = "@`%"
"""Characters that no plain value may begin with."""
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def decoding_problem(content: bytes, error: UnicodeDecodeError, file: str) -> Problem:
    """Return the problem of a file that is not UTF-8, with the place of the first bad byte."""
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return Problem(file, 0, 0, "", f"expected UTF-8, found {name}; save it as UTF-8")
    before = content[: error.start]
    line = before.count(b"\n") + 1
    column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
    message = (
        f"not UTF-8 at byte {error.start}: found 0x{content[error.start]:02x}; save it as UTF-8"
    )
    return Problem(file, line, column, "", message)


def syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    """Return the problem of a text that the YAML parser refused."""
    if isinstance(error, ReaderError):
        return _character_problem(error, text, file)
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(file, 0, 0, "", NOT_YAML + " ".join(str(error).split()))
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    written = text.split("\n")[line - 1].rstrip("\r") if 0 < line <= text.count("\n") + 1 else ""
    tab = _indenting_tab(written, column)
    if tab:
        return Problem(file, line, tab, "", f"{NOT_YAML}found a tab; indent with spaces")
    return Problem(file, line, column, "", NOT_YAML + _words(error, written, line, column))


def _words(error: yaml.MarkedYAMLError, written: str, line: int, column: int) -> str:
    found = written[column - 1 : column]
    if found and found in _BEGINNINGS:
        return f"a value cannot begin with {found!r}; put it in quotes"
    if "mapping values are not allowed" in str(error.problem):
        return "found a ':' where none can be; put the text in quotes, or mend the indentation"
    if "maximum nesting depth" in str(error.problem):  # the parser's own limit, since 6.0.4
        return "nested deeper than can be read"
    begun = error.context_mark.line + 1 if error.context_mark else line
    where = f" {error.context}, which begins at line {begun}" if error.context else ""
    return f"{error.problem or error.context}{where if error.problem else ''}"


def _indenting_tab(written: str, column: int) -> int:
    """Return the column of a tab in a line's indentation, or where the parser stopped; else 0."""
    indentation = written[: len(written) - len(written.lstrip())]
    if "\t" in indentation:
        return indentation.index("\t") + 1
    return column if written[column - 1 : column] == "\t" else 0


def _character_problem(error: ReaderError, text: str, file: str) -> Problem:
    """Return the problem of a control character: the first of its kind (readers count bytes)."""
    found = int(error.character)
    before = text[: max(0, text.find(chr(found)))]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    message = f"{NOT_YAML}found the control character U+{found:04X}; remove it"
    return Problem(file, line, column, "", message)
