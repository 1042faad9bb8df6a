"""Files of an artifact, written so that equal content has equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import scipy.sparse
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

ROW_GROUP_ROWS = 65_536


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns (arrays or pyarrow arrays of equal length) as Parquet; NaN stays NaN."""
    pyarrow.parquet.write_table(
        pyarrow.table(dict(columns)),
        path,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        compression_level=3,
        version="2.6",
        store_schema=False,
    )


def read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """Return the columns of a Parquet file as arrays; a null number reads as NaN."""
    table = pyarrow.parquet.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys; NaN and infinity are refused with ``ValueError``."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


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
