"""Tables as files: CSV and TSV, JSON Lines, Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from loopscope.specs.texts.plain_file import decoded
from loopscope.specs.texts.table import (
    Columns,
    Reader,
    check_rows,
    refuse_row,
    table_source,
    twice_a_column,
    unknown_column,
)

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import FileMetaData

DECODED_BYTES_MAX = 256 * 2**20
"""Most bytes of the columns that are read from a Parquet file."""
BATCH_ROWS = 10_000
"""Rows of a Parquet file that are read at once: their bytes are counted before they are texts."""


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
        twice_a_column(file, name, header.count(name))
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

    columns: Columns = {name: [] for name in wanted}
    try:
        opened = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        check_rows(file, opened.metadata.num_rows)
        _check_columns(opened.schema_arrow, file, wanted)
        _check_size(_encoded_bytes(opened.metadata, wanted), file, wanted)
        opened = pyarrow.parquet.ParquetFile(
            pyarrow.BufferReader(content), read_dictionary=list(wanted)
        )
        found = 0
        for batch in opened.iter_batches(
            batch_size=BATCH_ROWS, columns=list(wanted), use_threads=False
        ):
            found += sum(_decoded_bytes(batch.column(name)) for name in wanted)
            _check_size(found, file, wanted)
            for name in wanted:
                columns[name] += _values(batch.column(name), file, name)
    except (pyarrow.ArrowException, OSError) as error:
        words = " ".join(str(error).split())[:200]
        raise ValueError(f"{file} cannot be read as Parquet: {words}") from None
    return columns


def _check_columns(schema: pyarrow.Schema, file: str, wanted: Sequence[str]) -> None:
    """Raise ValueError for a column that is missing, there twice, or of lists or bytes."""
    from pyarrow import types

    for name in wanted:
        if name not in schema.names:
            unknown_column(file, name, schema.names)
        if (times := schema.names.count(name)) > 1:
            twice_a_column(file, name, times)
        found = schema.field(name).type
        values = found.value_type if types.is_dictionary(found) else found
        if types.is_nested(values) or types.is_fixed_size_binary(values):
            raise ValueError(
                f"{file}, column {name}: expected texts, numbers, or true and false; found "
                f"{str(found)[:60]}"
            )


def _encoded_bytes(metadata: FileMetaData, wanted: Sequence[str]) -> int:
    """Return the bytes of the columns before compression, as the file says itself."""
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
    return sum(one.total_uncompressed_size for one in chunks if one.path_in_schema in wanted)


def _decoded_bytes(values: pyarrow.Array) -> int:
    """Return the bytes of a column's values; one that a dictionary repeats counts each time."""
    import pyarrow
    from pyarrow import compute

    if not isinstance(values, pyarrow.DictionaryArray):
        return int(values.nbytes)
    lengths = compute.binary_length(values.dictionary)
    return int(compute.sum(lengths.take(values.indices)).as_py() or 0)


def _check_size(found: int, file: str, wanted: Sequence[str]) -> None:
    if found > DECODED_BYTES_MAX:
        raise ValueError(f"{file}: {', '.join(wanted)} hold {found:,} bytes, expected at most "
                         f"{DECODED_BYTES_MAX:,}; split it")  # fmt: skip


def _values(values: pyarrow.Array, file: str, name: str) -> list[object]:
    """Return a column as Python has it; a narrow 0.1 is 0.1, not 0.10000000149."""
    import pyarrow
    from pyarrow import types

    if types.is_float16(values.type) or types.is_float32(values.type):
        values = values.cast(pyarrow.string()).cast(pyarrow.float64())
    try:
        return list(values.to_pylist())
    except (OverflowError, ValueError) as error:  # a date that Python lacks, no UTF-8
        raise ValueError(f"{file}, column {name} cannot be read: {error}") from None


READERS: dict[str, Reader] = {
    "csv": separated,
    "tsv": partial(separated, delimiter="\t"),
    "jsonl": json_lines,
    "parquet": parquet,
}
"""By the value of ``format``."""
TABLES = tuple(table_source(format_, reader) for format_, reader in READERS.items())
