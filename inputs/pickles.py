"""The names in a pickle of weights, read without opening it: the one list of what may be in one.

The controller looks when a spec is applied, the sealed child again before it reads. Nothing of a
pickle is executed here; what is read of a file is bounded.
"""

from __future__ import annotations

import os
import pickletools
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

STREAM_BYTES_MAX = 2**20
"""A pickle of tensors holds their names and shapes; their numbers lie beside it."""

_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
ALLOWED = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        *(f"torch {name}Storage" for name in _STORAGES),
    }
)
"""The globals that a pickle of tensors names, as its opcodes spell them."""
_UNSAID = ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4")
"""Opcodes that make what PyTorch's checkpoints name by ``GLOBAL`` alone."""


class PickleRefused(Exception):
    """The file is not what is read here; the text says why."""


def check_pickle(file: BinaryIO) -> None:
    """Raise ``PickleRefused`` unless a file is a plain zip whose one pickle names known globals."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            content = archive.read(_only_pickle(archive.infolist(), size))
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError) as error:
        raise PickleRefused(
            f"it is not a checkpoint of PyTorch's zip format, since 1.6 ({error}){_bare(file)}"
        ) from None
    for name in _globals(content):
        if name not in ALLOWED:
            raise PickleRefused(f"it names {name[:100]!r}, which is no tensor")


def _only_pickle(members: list[zipfile.ZipInfo], size: int) -> zipfile.ZipInfo:
    pickles = [one for one in members if one.filename.endswith(".pkl")]
    if len(pickles) != 1 or not pickles[0].filename.endswith("/data.pkl"):
        raise PickleRefused("it is not one checkpoint of PyTorch's zip format (since 1.6)")
    if any(one.compress_type != zipfile.ZIP_STORED for one in members):
        raise PickleRefused("its members are compressed, which PyTorch never does")
    if sum(one.file_size for one in members) > size:
        raise PickleRefused("its members are larger than the file")
    if pickles[0].file_size > STREAM_BYTES_MAX:
        raise PickleRefused("its pickle is larger than one that holds names and shapes")
    return pickles[0]


def _bare(file: BinaryIO) -> str:
    """Return what a pickle outside of any archive names, as the end of a sentence."""
    file.seek(0)
    try:
        strange = (name for name in _globals(file.read(STREAM_BYTES_MAX)) if name not in ALLOWED)
        name = next(strange, None)
    except PickleRefused:
        return ""
    return f", but a pickle that names {name[:100]!r}" if name else ""


def _globals(content: bytes) -> Iterator[str]:
    """Yield the globals that a pickle names. Raises ``PickleRefused`` where it is damaged."""
    words: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "GLOBAL":
                yield str(argument)
            elif opcode.name in _UNSAID:
                yield " ".join((*words[-2:], f"({opcode.name})"))  # never one of the list
            if isinstance(argument, str):
                words.append(argument)
            elif opcode.name not in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
                words.clear()
    except Exception as error:
        raise PickleRefused(f"its pickle is damaged ({type(error).__name__})") from None
