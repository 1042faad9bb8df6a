"""Safetensors files of artifacts, read without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loopscope.state.artifacts.store import Corrupt

HEADER_BYTES_MAX = 2**20
Tensors = dict[str, NDArray[np.generic]]
"""Tensors by name."""
_DTYPES = {"I64": "<i8", "I32": "<i4", "F32": "<f4", "F64": "<f8"}


def read_tensors(path: Path) -> Tensors:
    """Return the tensors of a file by name, each with its shape. Raises Corrupt."""
    try:
        return _tensors(path)
    except (KeyError, ValueError, IndexError, TypeError, OSError) as error:
        raise Corrupt(f"{path} cannot be read: {error}") from None


def _tensors(path: Path) -> Tensors:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > HEADER_BYTES_MAX:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(stream.read(length))
    found = {}
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        start, end = tensor["data_offsets"]
        dtype = np.dtype(_DTYPES[tensor["dtype"]])
        count = (end - start) // dtype.itemsize
        flat = np.fromfile(path, dtype=dtype, count=count, offset=8 + length + start)
        found[name] = flat.reshape(tensor["shape"])
    return found
