"""Prompt activations of a decomposition, read without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loopscope.state.artifacts.store import Corrupt

Floats = NDArray[np.float32]

HEADER_BYTES_MAX = 2**20
_DTYPES = {"I64": "<i8", "I32": "<i4", "F32": "<f4"}


def prompt_activations(path: Path, latents: Iterable[int]) -> dict[int, Floats]:
    """Return the activations [prompts] of some latents from ``activations.safetensors``.

    Silent prompts are 0. Raises Corrupt when the file does not hold the sparse matrix that
    ``specs/artifacts/decomposition.py`` describes.
    """
    try:
        tensors = _tensors(path)
        indptr, indices, values = (tensors[name] for name in ("indptr", "indices", "values"))
        prompts = int(tensors["shape"][0])
        row = np.repeat(np.arange(prompts), np.diff(indptr))
        found: dict[int, Floats] = {}
        for latent in latents:
            here = indices == latent
            found[latent] = np.zeros(prompts, dtype=np.float32)
            found[latent][row[here]] = values[here]
    except (KeyError, ValueError, IndexError, TypeError, OSError) as error:
        raise Corrupt(f"{path} cannot be read: {error}") from None
    return found


def _tensors(path: Path) -> dict[str, NDArray[np.generic]]:
    """Return the tensors of a safetensors file, mapped into memory."""
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
        found[name] = np.fromfile(path, dtype=dtype, count=count, offset=8 + length + start)
    return found
