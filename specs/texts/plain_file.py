"""Plain files: one text a line, and what is taken for another format.

A name decides by its ending. A look decides only where the *whole* file is something else: an
honest prompt may begin with a brace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from loopscope.specs.git_lfs import ADVICE, is_pointer
from loopscope.specs.texts.source import ReadTexts, TextFiles, TextSource

_FORMATS = {
    "JSON Lines": (".jsonl", ".jsonlines", ".ndjson"),
    "JSON": (".json", ".ipynb"),
    "YAML": (".yaml", ".yml"),
    "a table": (".csv", ".tsv", ".tab", ".parquet", ".arrow", ".feather", ".xlsx", ".xls", ".ods"),
    "markup": (".html", ".htm", ".xml"),
    "a document": (".pdf", ".docx", ".doc", ".odt", ".rtf"),
    "compressed": (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".tar", ".tgz"),
    "binary": (".npy", ".npz", ".pkl", ".pt", ".safetensors", ".db", ".sqlite"),
}
_BY_ENDING = {ending: name for name, endings in _FORMATS.items() for ending in endings}


def lines_of(content: bytes, file: str, *, as_lines: bool = False) -> list[str]:
    """Return the non-blank lines, stripped at the end, of a UTF-8 text file.

    Raises ValueError with one sentence for another encoding, a Git LFS pointer, and, unless
    ``as_lines``, another format.
    """
    if is_pointer(content):
        raise ValueError(f"{file} {ADVICE}")
    found = None if as_lines else _BY_ENDING.get(PurePath(file).suffix.lower())
    if found is not None:
        raise ValueError(f"{file} is {found} by its name{_WHAT_TO_DO}")
    text = decoded(content, file)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept = [line.rstrip() for line in lines if line.strip()]
    found = None if as_lines else _whole(text, kept)
    if found is not None:
        raise ValueError(f"{file} is {found} from its first line to its last{_WHAT_TO_DO}")
    return kept


def decoded(content: bytes, file: str) -> str:
    """Return the text of a UTF-8 file, without a byte order mark at its start.

    Raises ValueError for a Git LFS pointer and for another encoding.
    """
    if is_pointer(content):
        raise ValueError(f"{file} {ADVICE}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    if "\0" in text:
        raise ValueError(f"{file} holds the character U+0000; if it is UTF-16, save it as UTF-8")
    return text


_WHAT_TO_DO = (
    ", not one text a line; if it is a table, say which (format: csv, tsv, jsonl or parquet) and "
    "name the column that holds the texts (column); otherwise write the texts alone, one a line, "
    "into a .txt file, or give them in place (texts); if its lines are meant as they stand, write "
    "format: lines"
)


def _whole(text: str, lines: list[str]) -> str | None:
    """Return which format the whole text is in, if it is another one than lines of text."""
    if not lines or lines[0].lstrip()[:1] not in ("{", "["):
        return None
    if all(line.lstrip().startswith("{") and isinstance(_json(line), dict) for line in lines):
        return "JSON Lines" if len(lines) > 1 else "JSON"
    return "JSON" if isinstance(_json(text), dict | list) else None


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read(given: Mapping[str, Any], files: TextFiles) -> ReadTexts:
    file = given["file"]
    return ReadTexts(lines_of(files.content(file), file, as_lines=given.get("format") == "lines"))


PLAIN_FILE = TextSource("file", _read, options=("sample",))
AS_LINES = TextSource("file", _read, format="lines", options=("sample",))
