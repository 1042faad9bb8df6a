"""Shapes of tensors in safetensors and npz files, read from the headers only.

Hostile files are expected: every length is checked against a bound and the file's size before
it is used, and nothing is ever unpickled.
"""

from __future__ import annotations

import io
import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import BinaryIO, TypeGuard

from loopscope.specs.git_lfs import ADVICE, POINTER_BYTES_MIN, is_pointer
from loopscope.specs.json_values import Json, JsonObject

SAFETENSORS_HEADER_BYTES_MAX = 8 * 2**20
"""Some 70,000 tensors. The format allows 100 MB, which as values would be gigabytes of memory."""
NPZ_MEMBERS_MAX = 64
NPZ_EXPANSION_MAX = 50
NPZ_EXPANSION_FREE_BYTES = 256 * 2**20
"""Arrays of zeros shrink a thousandfold; so much of them is believed whatever the file's size."""
NPY_HEADER_BYTES_MAX = 16_384
DIMENSIONS_MAX = 8

_ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
_NPY_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16"}
_NPZ_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, ValueError, OverflowError,
    NotImplementedError, RuntimeError, EOFError,
)  # fmt: skip
_NPY_DAMAGE = (ValueError, TypeError, EOFError, SyntaxError, tokenize.TokenError, RecursionError,
               MemoryError, OverflowError)  # fmt: skip
"""What ``zipfile`` and numpy's parser of literals raise for bytes that are not archives."""


class HeaderError(ValueError):
    """The bytes are not a well-formed header of the expected format."""


@dataclass(frozen=True)
class TensorHeader:
    """Element type (safetensors spelling, for example ``F32``) and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def read_safetensors_header(stream: BinaryIO, size: int) -> dict[str, TensorHeader]:
    """Return name -> header of a safetensors file of ``size`` bytes; ``HeaderError`` if bad.

    Format: 8 bytes little-endian header length, JSON header, data.
    """
    refuse_pointer(stream)
    prefix = _exactly(stream, 8)
    length = int.from_bytes(prefix, "little")
    if length > min(SAFETENSORS_HEADER_BYTES_MAX, size - 8):
        raise HeaderError(f"the header claims {length} bytes, the file has {size}")
    try:
        entries = json.loads(_exactly(stream, length), object_pairs_hook=_distinct)
    except HeaderError:
        raise
    except (ValueError, RecursionError):
        raise HeaderError("the header is not JSON") from None
    if not isinstance(entries, dict):
        raise HeaderError("the header is not a JSON object")
    entries.pop("__metadata__", None)
    data_bytes = size - 8 - length
    headers = {name: _safetensors_entry(name, entry, data_bytes) for name, entry in entries.items()}
    _check_coverage([tuple(entry["data_offsets"]) for entry in entries.values()], data_bytes)
    return headers


def _distinct(pairs: list[tuple[str, Json]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise HeaderError("the header names something twice")
    return found


def _check_coverage(places: list[tuple[int, int]], data_bytes: int) -> None:
    """Each byte of the data belongs to one tensor, as the format demands."""
    end = 0
    for begin, next_end in sorted(places):
        if begin != end:
            raise HeaderError("tensors overlap, or bytes between them belong to none")
        end = next_end
    if end != data_bytes:
        raise HeaderError(f"{data_bytes - end} bytes at the end belong to no tensor")


def _safetensors_entry(name: str, entry: Json, data_bytes: int) -> TensorHeader:
    wrong = HeaderError(f"the entry of tensor {name[:80]!r} is malformed")
    if not isinstance(entry, dict) or str(entry.get("dtype")) not in _ITEM_BYTES:
        raise wrong
    dtype, shape, offsets = str(entry["dtype"]), entry.get("shape"), entry.get("data_offsets")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise wrong
    begin, end = offsets
    if not begin <= end <= data_bytes:
        raise HeaderError(f"tensor {name[:80]!r} reaches beyond the file's end; it is truncated")
    if prod(shape) * _ITEM_BYTES[dtype] != end - begin:
        raise wrong
    return TensorHeader(dtype, tuple(shape))


def _naturals(value: Json) -> TypeGuard[list[int]]:
    return (
        isinstance(value, list)
        and len(value) <= DIMENSIONS_MAX
        and all(type(item) is int and 0 <= item < 2**48 for item in value)
    )


def read_npz_headers(stream: BinaryIO) -> dict[str, TensorHeader]:
    """Return name -> header of the arrays in an npz file; ``HeaderError`` if bad.

    Only float arrays are accepted, so an array of pickled objects is refused here.
    """
    refuse_pointer(stream)
    try:
        with zipfile.ZipFile(stream) as archive:
            return dict(_npz_entries(archive))
    except HeaderError:
        raise
    except _NPZ_DAMAGE as error:
        raise HeaderError(f"not a readable npz file ({error})") from None


def _npz_entries(archive: zipfile.ZipFile) -> Iterator[tuple[str, TensorHeader]]:
    members = archive.infolist()
    if len(members) > NPZ_MEMBERS_MAX:
        raise HeaderError(f"{len(members)} members, at most {NPZ_MEMBERS_MAX} are read")
    if len({member.filename for member in members}) != len(members):
        raise HeaderError("two members have the same name")
    promised = sum(member.file_size for member in members)
    assert archive.fp is not None  # it was just opened
    if promised > NPZ_EXPANSION_MAX * archive.fp.seek(0, io.SEEK_END) + NPZ_EXPANSION_FREE_BYTES:
        raise HeaderError(f"a file of this size does not hold {promised} bytes of weights")
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise HeaderError(f"{member.filename[:80]!r} is compressed in a way numpy never uses")
        if member.filename.endswith(".npy"):
            with archive.open(member) as content:
                start = content.read(NPY_HEADER_BYTES_MAX)
            yield member.filename[:-4], _npy_header(member.filename, start, member.file_size)


def _npy_header(name: str, start: bytes, size: int) -> TensorHeader:
    from numpy.lib import format as npy  # late: a server and an apply seldom need it

    stream = io.BytesIO(start)
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
    except _NPY_DAMAGE:
        raise HeaderError(f"array {name[:80]!r} has no readable header") from None
    if dtype.hasobject or dtype.name not in _NPY_NAMES:
        raise HeaderError(f"array {name[:80]!r} holds {dtype.name}, expected floats")
    if len(shape) > DIMENSIONS_MAX or any(side < 0 for side in shape):
        raise HeaderError(f"array {name[:80]!r} has an impossible shape")
    if prod(shape) * dtype.itemsize != size - stream.tell():
        raise HeaderError(f"array {name[:80]!r} does not hold the values its shape promises")
    return TensorHeader(_NPY_NAMES[dtype.name], tuple(int(side) for side in shape))


def refuse_pointer(stream: BinaryIO) -> None:
    """Raise ``HeaderError`` for a Git LFS pointer; the stream then stands at its start."""
    stream.seek(0)
    start = stream.read(8)
    if start == b"version ":
        start += stream.read(POINTER_BYTES_MIN)
    stream.seek(0)
    if is_pointer(start):
        raise HeaderError(f"this {ADVICE}")


def _exactly(stream: BinaryIO, count: int) -> bytes:
    content = stream.read(count)
    if len(content) != count:
        raise HeaderError("the file ends within its header")
    return content
