"""Weights in memory-mapped files: read block by block, and given back after each block.

Pages of a mapped file are no memory of the process's own: the system drops and reads them again.
They count as resident until they are given back, so what passes over gigabytes does that as it
goes along.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from loopscope.inputs.headers import HeaderError, read_npz_headers, read_safetensors_header

CHUNK_BYTES = 16 * 2**20
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32,
}  # fmt: skip


@dataclass(frozen=True)
class MappedFile:
    """A file with its tensors, which lie in the file's pages, but for misplaced ones.

    A tensor that does not begin at a multiple of its item's size is a copy: not every writer
    pads its header. One file that ``is_lasting`` can be mapped again; another one vanishes with
    the process.
    """

    tensors: dict[str, Tensor]
    _map: mmap.mmap
    is_lasting: bool = True

    @staticmethod
    def open(path: Path) -> MappedFile:
        """Map a safetensors file. Raises HeaderError for anything else, OSError."""
        size = path.stat().st_size
        with path.open("rb") as stream:
            read_safetensors_header(stream, size)  # checks every length and offset
            stream.seek(0)
            length = int.from_bytes(stream.read(8), "little")
            entries = json.loads(stream.read(length))
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        entries.pop("__metadata__", None)
        found = {
            name: _view(mapped, name, entry, 8 + length) for name, entry in sorted(entries.items())
        }
        return MappedFile(found, mapped)

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in this file's pages."""
        whole = torch.frombuffer(self._map, dtype=torch.uint8)
        begin = tensor.data_ptr() - whole.data_ptr()
        return begin >= 0 and begin + tensor.nbytes <= whole.nbytes

    def release(self) -> None:
        """Give back all pages: the next look at a tensor reads them again."""
        self._map.madvise(mmap.MADV_DONTNEED)


def _view(mapped: mmap.mmap, name: str, entry: Mapping[str, object], start: int) -> Tensor:
    dtype, shape = _DTYPES.get(str(entry["dtype"])), entry["shape"]
    offsets = entry["data_offsets"]
    assert isinstance(shape, list)  # the header was checked
    assert isinstance(offsets, list)
    if dtype is None:
        raise HeaderError(f"tensor {name[:80]!r} holds {entry['dtype']}, expected numbers")
    if not prod(shape):
        return torch.empty(shape, dtype=dtype)
    place = start + int(offsets[0])
    if place % dtype.itemsize:
        content = torch.frombuffer(
            mapped, dtype=torch.uint8, count=prod(shape) * dtype.itemsize, offset=place
        )
        return content.clone().view(dtype).reshape(shape)
    flat = torch.frombuffer(mapped, dtype=dtype, count=prod(shape), offset=place)
    return flat.reshape(shape)


@dataclass(frozen=True)
class FilePages:
    """Which addresses of this process are pages of files, at one moment.

    Empty where the system does not tell (it is Linux that does, in ``/proc/self/maps``).
    """

    ranges: tuple[tuple[int, int], ...]

    @staticmethod
    def now() -> FilePages:
        """Read the process's map."""
        try:
            lines = Path("/proc/self/maps").read_text().splitlines()
        except OSError:
            return FilePages(())
        fields = [line.split(maxsplit=5) for line in lines]
        of_files = [one[0].split("-") for one in fields if len(one) == 6 and one[5][:1] == "/"]
        return FilePages(tuple((int(begin, 16), int(end, 16)) for begin, end in of_files))

    def release(self, tensor: Tensor) -> None:
        """Give back the pages of a tensor that nobody wrote to: the next look reads them again.

        Only whole pages of a file; a tensor in other memory stays as it is.
        """
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            return
        begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        if any(first <= begin and end <= last for first, last in self.ranges):
            begin, end = -(-begin // mmap.PAGESIZE), end // mmap.PAGESIZE
            size = max(0, end - begin) * mmap.PAGESIZE
            _madvise(ctypes.c_void_p(begin * mmap.PAGESIZE), size, mmap.MADV_DONTNEED)


def _madvise(begin: ctypes.c_void_p, size: int, advice: int) -> None:
    if size:
        ctypes.CDLL(None).madvise(begin, ctypes.c_size_t(size), advice)  # advice: it may fail


def mapped_npz(path: Path, folder: Path) -> MappedFile:
    """Return the arrays of an npz file in a nameless file in ``folder``, unpacked in chunks.

    Raises HeaderError for what is no archive of plain arrays, OSError, and what ``zipfile`` raises
    for damaged members.
    """
    with path.open("rb") as stream:
        names = read_npz_headers(stream)
    found: dict[str, tuple[int, np.dtype[np.generic], tuple[int, ...], bool]] = {}
    with tempfile.TemporaryFile(dir=folder) as unpacked, zipfile.ZipFile(path) as archive:
        for name in names:
            with archive.open(f"{name}.npy") as content:
                is_first = npy.read_magic(content) == (1, 0)
                read = npy.read_array_header_1_0 if is_first else npy.read_array_header_2_0
                shape, fortran, dtype = read(content)
                if not dtype.isnative:
                    raise HeaderError(f"array {name[:80]!r} has its bytes in another order")
                found[name] = unpacked.tell(), dtype, shape, fortran
                shutil.copyfileobj(content, unpacked, CHUNK_BYTES)
            unpacked.write(b"\0" * (-unpacked.tell() % 64))
        unpacked.flush()
        mapped = mmap.mmap(unpacked.fileno(), 0, access=mmap.ACCESS_COPY)
    arrays = {name: _array(mapped, *place) for name, place in found.items()}
    return MappedFile(arrays, mapped, is_lasting=False)


def _array(
    mapped: mmap.mmap,
    begin: int,
    dtype: np.dtype[np.generic],
    shape: tuple[int, ...],
    fortran: bool,
) -> Tensor:
    if not prod(shape):
        return torch.from_numpy(np.empty(shape, dtype))
    flat = np.frombuffer(mapped, dtype=dtype, count=prod(shape), offset=begin)
    return torch.from_numpy(flat.reshape(shape, order="F" if fortran else "C"))


def write_float32(
    path: Path, tensors: Mapping[str, Tensor], on_bytes: Callable[[int], None]
) -> None:
    """Write tensors as a safetensors file of float32, a chunk at a time.

    ``on_bytes`` is called with the number of bytes that are written.
    """
    offset, entries = 0, {}
    for name, tensor in sorted(tensors.items()):
        end = offset + 4 * tensor.numel()
        entries[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, sort_keys=True).encode()
    header += b" " * (-len(header) % 64)
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for _, tensor in sorted(tensors.items()):
            flat = tensor.reshape(-1)
            for start in range(0, flat.numel(), CHUNK_BYTES // 4):
                chunk = flat[start : start + CHUNK_BYTES // 4].float()
                stream.write(chunk.numpy().tobytes())
                on_bytes(stream.tell())
