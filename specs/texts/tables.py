"""Tables as files: CSV and TSV, JSON Lines, Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from functools import partial

from loopscope.specs.texts.plain_file import decoded
from loopscope.specs.texts.table import (
    Columns,
    check_rows,
    refuse_row,
    table_source,
    unknown_column,
)

DECODED_BYTES_MAX = 256 * 2**20
"""Most bytes of the columns that are read from a Parquet file, as it says itself."""


def separated(content: bytes, file: str, wanted: Sequence[str], delimiter: str = ",") -> Columns:
    """Return columns of a CSV with a header, as text."""
    stream = io.StringIO(decoded(content, file), newline="")
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        places = {name: _place(header, name, file) for name in wanted}
        columns: Columns = {name: [] for name in wanted}
        row = 0
        for values in reader:
            if not values:
                continue  # a blank line
            if len(values) != len(header):
                found = f"{len(values)} values, expected {len(header)} as in the header"
                refuse_row(file, row, None, f"{found} (line {reader.line_num})")
            for name, place in places.items():
                columns[name].append(values[place])
            row += 1
            check_rows(file, row)
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: {error}") from None
    return columns


def _place(header: Sequence[str], name: str, file: str) -> int:
    if name not in header:
        unknown_column(file, name, header)
    if header.count(name) > 1:
        raise ValueError(f"{file} has {header.count(name)} columns {name!r}; rename all but one")
    return header.index(name)


def json_lines(content: bytes, file: str, wanted: Sequence[str]) -> Columns:
    """Return fields of JSON objects, one a line; None where a line lacks one."""
    columns: Columns = {name: [] for name in wanted}
    known: dict[str, None] = {}
    row = 0
    for line in decoded(content, file).split("\n"):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            refuse_row(file, row, None, f"not JSON: {line.strip()[:60]!r}")
        if not isinstance(value, dict):
            refuse_row(file, row, None, f"expected a JSON object, found {line.strip()[:60]!r}")
        known.update(dict.fromkeys(value))
        for name, found in columns.items():
            found.append(value.get(name))
        row += 1
        check_rows(file, row)
    for name in wanted:
        if row and name not in known:
            unknown_column(file, name, list(known))
    return columns


def parquet(content: bytes, file: str, wanted: Sequence[str]) -> Columns:
    """Return columns of a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    try:
        opened = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        known = opened.schema_arrow.names
        check_rows(file, opened.metadata.num_rows)
        for name in wanted:
            if name not in known:
                unknown_column(file, name, known)
        _check_size(opened.metadata, file, wanted)
        table = opened.read(columns=list(wanted), use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        words = " ".join(str(error).split())[:200]
        raise ValueError(f"{file} cannot be read as Parquet: {words}") from None
    return {name: table.column(name).to_pylist() for name in wanted}


def _check_size(metadata: object, file: str, wanted: Sequence[str]) -> None:
    from pyarrow.parquet import FileMetaData

    assert isinstance(metadata, FileMetaData)
    found = 0
    for group in range(metadata.num_row_groups):
        chunks = metadata.row_group(group)
        for place in range(chunks.num_columns):
            chunk = chunks.column(place)
            if chunk.path_in_schema.split(".")[0] in wanted:
                found += chunk.total_uncompressed_size
    if found > DECODED_BYTES_MAX:
        raise ValueError(f"{file}: {', '.join(wanted)} hold {found:,} bytes, expected at most "
                         f"{DECODED_BYTES_MAX:,}; split it")  # fmt: skip


CSV = table_source("csv", separated)
TSV = table_source("tsv", partial(separated, delimiter="\t"))
JSON_LINES = table_source("jsonl", json_lines)
PARQUET = table_source("parquet", parquet)
TABLES = (CSV, TSV, JSON_LINES, PARQUET)
