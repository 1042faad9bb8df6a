"""Files of an artifact, written as they are declared, so that equal content has equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import scipy.sparse
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from loopscope.specs.artifact_files import Column, ColumnType, Document, Shape, Table

ROW_GROUP_ROWS = 65_536
ARROW_TYPES: Mapping[ColumnType, pyarrow.DataType] = {
    "text": pyarrow.string(),
    "bool": pyarrow.bool_(),
    "int32": pyarrow.int32(),
    "int64": pyarrow.int64(),
    "float32": pyarrow.float32(),
    "float64": pyarrow.float64(),
    "list of int32": pyarrow.list_(pyarrow.int32()),
}


Columns = Mapping[str, Sequence[object] | NDArray[Any]]
"""The columns of a table by name, all of one length."""


def write_table(out: Path, table: Table, columns: Columns) -> None:
    """Write a table (arrays or pyarrow arrays of equal length) as Parquet; NaN stays NaN.

    Raises ValueError where the columns, their order or their types are not those declared.
    """
    found = pyarrow.table(dict(columns))
    check_columns(table, found)
    pyarrow.parquet.write_table(
        found,
        out / table.name,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        compression_level=3,
        version="2.6",
        store_schema=False,
    )


def check_columns(table: Table, found: pyarrow.Table) -> None:
    """Raise ValueError where a table has other columns, another order or types than declared.

    A column without rows may have no type, where nothing gave it one.
    """
    there = set(found.column_names)
    expected = [column for column in table.columns if column.name in there or not column.where]
    if found.column_names != [column.name for column in expected]:
        raise ValueError(
            f"{table.name} has the columns {', '.join(found.column_names)}; declared are "
            + ", ".join(column.name for column in expected)
        )
    for column, kind in zip(expected, found.schema.types, strict=True):
        allowed = [ARROW_TYPES[column.type], *([] if found.num_rows else [pyarrow.null()])]
        if kind not in allowed:
            raise ValueError(f"{table.name}: {column.name} is {kind}, declared is {column.type}")


def joined(
    parts: Sequence[Mapping[str, NDArray[Any]]], columns: Sequence[Column]
) -> dict[str, NDArray[Any]]:
    """Concatenate parts of a table; without any, return empty columns of the declared types."""
    kinds = {c.name: np.str_ if c.type == "text" else np.dtype(c.type) for c in columns}
    return {
        name: np.concatenate([np.empty(0, dtype=kind), *(part[name] for part in parts)])
        for name, kind in kinds.items()
    }


def read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """Return the columns of a Parquet file as arrays; a null number reads as NaN."""
    table = pyarrow.parquet.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def write_document(out: Path, document: Document[Shape], value: Shape) -> None:
    """Write JSON with sorted keys; NaN and infinity are refused with ``ValueError``."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    (out / document.name).write_text(text + "\n", encoding="utf-8")


def read_document(folder: Path, document: Document[Shape]) -> Shape:
    """Return what ``write_document`` wrote."""
    found: Shape = json.loads((folder / document.name).read_text(encoding="utf-8"))
    return found


def write_sparse(
    path: Path, matrix: scipy.sparse.csr_array, extra: Mapping[str, NDArray[Any]] | None = None
) -> None:
    """Write CSR as safetensors: indptr i64, indices i32, values f32, shape i64[2], and extras."""
    tensors = {
        "indptr": matrix.indptr.astype(np.int64),
        "indices": matrix.indices.astype(np.int32),
        "values": matrix.data.astype(np.float32),
        "shape": np.asarray(matrix.shape, dtype=np.int64),
        **(extra or {}),
    }
    save_file(dict(sorted(tensors.items())), path)


def read_sparse(path: Path) -> tuple[scipy.sparse.csr_array, dict[str, NDArray[Any]]]:
    """Return the CSR matrix and the extra tensors of a file that ``write_sparse`` made."""
    tensors = load_file(path)
    parts = tensors.pop("values"), tensors.pop("indices"), tensors.pop("indptr")
    return scipy.sparse.csr_array(parts, shape=tuple(tensors.pop("shape").tolist())), tensors
