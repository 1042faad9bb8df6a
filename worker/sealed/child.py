"""The child that opens a pickle: ``python -I -m`` of it, with the file as standard input.

It writes one safetensors file to standard output and, if it refuses, why to standard error. Only
checkpoints of PyTorch's zip format are read, with ``weights_only``, and only if each global that
they name is on a list; what is not a dense tensor is left out.
"""

from __future__ import annotations

import json
import os
import pickletools
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from loopscope.worker.sealed import protections

if TYPE_CHECKING:
    from torch import Tensor

STREAM_BYTES_MAX = 16 * 2**20
"""A pickle of tensors holds their names and shapes; their numbers lie beside it."""
TENSORS_MAX = 256
MEMORY_FREE_BYTES = 4 * 2**30
"""Memory of torch itself, before any weights."""
REFUSED = 3
"""Exit status of a refusal, whose words are on standard error."""

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
_TYPES = {
    "torch.float64": "F64", "torch.float32": "F32", "torch.float16": "F16",
    "torch.bfloat16": "BF16", "torch.int64": "I64", "torch.int32": "I32", "torch.bool": "BOOL",
}  # fmt: skip


class Refused(Exception):
    """The file is not what is read here; the text says why."""


def checked_stream(file: BinaryIO) -> None:
    """Raise ``Refused`` unless the file is a plain zip whose one pickle names known globals."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            pickles = [one for one in members if one.filename.endswith(".pkl")]
            if len(pickles) != 1 or not pickles[0].filename.endswith("/data.pkl"):
                raise Refused("it is not one checkpoint of PyTorch's zip format (since 1.6)")
            if any(one.compress_type != zipfile.ZIP_STORED for one in members):
                raise Refused("its members are compressed, which PyTorch never does")
            if sum(one.file_size for one in members) > size:
                raise Refused("its members are larger than the file")
            if pickles[0].file_size > STREAM_BYTES_MAX:
                raise Refused("its pickle is larger than one that holds names and shapes")
            content = archive.read(pickles[0])
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError) as error:
        raise Refused(
            f"it is not a checkpoint of PyTorch's zip format, since 1.6 ({error})"
        ) from None
    for name in _globals(content):
        if name not in ALLOWED:
            raise Refused(f"it names {name[:100]!r}, which is no tensor")


def _globals(content: bytes) -> Iterator[str]:
    """Yield the globals that a pickle names; nothing of it is executed."""
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "GLOBAL":
                yield str(argument)
            elif opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
                yield opcode.name
    except Exception as error:
        raise Refused(f"its pickle is damaged ({type(error).__name__})") from None


def tensors_of(loaded: Any) -> dict[str, Tensor]:
    """Return the dense tensors of a checkpoint by name. Raises ``Refused``."""
    import torch

    if not isinstance(loaded, dict):
        raise Refused(f"it holds a {type(loaded).__name__}, expected named tensors")
    found = {}
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            continue
        if value.layout is not torch.strided or str(value.dtype) not in _TYPES or value.is_meta:
            raise Refused(f"tensor {name[:80]!r} is not dense, or of the type {value.dtype}")
        found[name] = value.detach()
    if not 0 < len(found) <= TENSORS_MAX:
        raise Refused(f"it holds {len(found)} named tensors, expected 1 to {TENSORS_MAX}")
    return found


def write_safetensors(tensors: dict[str, Tensor], file: BinaryIO) -> None:
    """Write tensors one after the other, as safetensors lays them out."""
    import torch

    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _TYPES[str(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # a tensor that begins elsewhere cannot be mapped
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        flat = tensor.contiguous().reshape(-1)
        if flat.numel():
            file.write(flat.view(torch.uint8).numpy().data)
    file.flush()


def main() -> None:
    """Read standard input, write standard output."""
    source = sys.stdin.buffer
    protections.before_imports(MEMORY_FREE_BYTES + 3 * os.fstat(source.fileno()).st_size)
    try:
        checked_stream(source)
        import torch  # late: most of what is refused needs no second of it

        torch.set_num_threads(1)
        protections.before_reading()
        source.seek(0)
        mapped = Path(f"/proc/self/fd/{source.fileno()}")
        loaded = torch.load(
            mapped if mapped.exists() else source,
            map_location="cpu",
            weights_only=True,
            mmap=mapped.exists(),
        )
        write_safetensors(tensors_of(loaded), sys.stdout.buffer)
    except Refused as error:
        sys.stderr.write(str(error))
        sys.exit(REFUSED)


if __name__ == "__main__":
    main()
