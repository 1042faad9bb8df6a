"""Objects as ``-o`` asks for them: documents, names, parts of them, columns of one's own."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence

from loopscope.context import CommandError
from loopscope.jsonpath import find, render, text_of
from loopscope.reports.text_table import TextTable
from loopscope.state.records import ObjectRecord
from loopscope.terminal.columns import show
from loopscope.views.documents.objects import (
    ListDocument,
    ObjectDocument,
    list_document,
    object_document,
)

FORMS = "json, yaml, name, wide, jsonpath=TEMPLATE or custom-columns=NAME:PATH,…"
NOTHING = "<none>"
"""What kubectl prints where a field is not there."""
_OTHER_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""Line ends to YAML, or forbidden there. What is printed as JSON is applied as YAML."""
_PATHS = ("jsonpath=", "custom-columns=")


def check_output(output: str | None) -> None:
    """Raise CommandError for a form that is not known, or columns that cannot be read."""
    known = (None, "wide", "json", "yaml", "name")
    if output not in known and not (output or "").startswith(_PATHS):
        raise CommandError(f"unknown output {output!r}; expected {FORMS}")
    if output is not None and output.startswith("custom-columns="):
        _columns(output)


def is_table(output: str | None) -> bool:
    """Whether the columns are those of the kind."""
    return output in (None, "wide")


def yaml_text(document: object) -> str:
    """Return a document as YAML, its fields in the order that they have."""
    import yaml  # late: a table must come quickly

    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def print_documents(
    records: Sequence[ObjectRecord], output: str | None, *, single: bool, headers: bool = True
) -> None:
    """Print objects in a form that is no table of their kind. ``single``: one is no list."""
    if output == "name":
        for record in records:
            print(record.key, flush=True)
        return
    if output is not None and output.startswith("custom-columns="):
        show(_custom(records, output), headers=headers)
        sys.stdout.flush()
        return
    one = single and len(records) == 1
    document: ObjectDocument | ListDocument = (
        object_document(records[0]) if one else list_document(records)
    )
    if output == "json":
        text = json.dumps(document, indent=2, ensure_ascii=False)
        print(_OTHER_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text), flush=True)
    elif output == "yaml":
        print(yaml_text(document).rstrip(), flush=True)
    else:
        try:
            text = render((output or "").removeprefix("jsonpath="), document)
        except ValueError as error:
            raise CommandError(f"--output jsonpath: {error}") from None
        except LookupError as error:
            raise CommandError(f"--output jsonpath: {error}", 1) from None
        print(text, end="" if text.endswith("\n") or not text else "\n", flush=True)


def _custom(records: Sequence[ObjectRecord], output: str) -> TextTable:
    columns = _columns(output)
    documents = [object_document(record) for record in records]
    rows = [[_cell(path, document) for path in columns.values()] for document in documents]
    return TextTable(list(columns), rows)


def _columns(output: str) -> dict[str, str]:
    """Return the paths by the names of their columns. Raises CommandError."""
    columns: dict[str, str] = {}
    for part in output.removeprefix("custom-columns=").split(","):
        name, colon, path = part.partition(":")
        path = path[1:-1] if path.startswith("{") and path.endswith("}") else path
        if not (name and colon and path) or name in columns:
            raise CommandError(
                f"--output custom-columns: {part!r}; expected NAME:PATH, each name once, for "
                "example NAME:.metadata.name,GATE:.status.summary.gate"
            )
        try:
            find(path, {})
        except ValueError as error:
            raise CommandError(f"--output custom-columns: {error}") from None
        except LookupError:
            pass  # a place in a list that the empty document has not
        columns[name] = path
    return columns


def _cell(path: str, document: ObjectDocument) -> str:
    try:
        values = find(path, document)
    except LookupError:
        values = []
    text = ",".join(text_of(value) for value in values if value is not None)
    return " ".join(text.split()) or NOTHING
