"""Thresholds of a dictionary, read from its file without torch: one small tensor of many."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loopscope.inputs.headers import HeaderError, read_safetensors_header
from loopscope.specs.payloads.references import DictionaryReference

LATENTS_MAX = 2**24
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_NAME = "threshold"


def thresholds_of(reference: DictionaryReference) -> NDArray[np.float64] | None:
    """Return the threshold of each latent, [latents]; None where they are not in a local file."""
    source = reference["source"]
    if source["kind"] == "hub":
        return None
    place = Path(source["path"])
    try:
        path = next(iter(sorted(place.glob("*.safetensors")))) if place.is_dir() else place
        return _npz(path) if path.suffix == ".npz" else _safetensors(path)
    except (OSError, ValueError, KeyError, HeaderError, StopIteration):
        return None


def _npz(path: Path) -> NDArray[np.float64]:
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays[_NAME], dtype=np.float64)


def _safetensors(path: Path) -> NDArray[np.float64] | None:
    with path.open("rb") as stream:
        header = read_safetensors_header(stream, path.stat().st_size).get(_NAME)
        if header is None or len(header.shape) != 1 or header.shape[0] > LATENTS_MAX:
            return None
        stream.seek(0)
        length = int.from_bytes(stream.read(8), "little")
        start, _ = json.loads(stream.read(length))[_NAME]["data_offsets"]
        stream.seek(8 + length + start)
        kind = np.dtype(_DTYPES[header.dtype])
        values = np.frombuffer(stream.read(header.shape[0] * kind.itemsize), kind)
    if header.dtype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64)
