"""The child that opens a pickle: ``python -I -m`` of it, with the file as standard input.

It writes one safetensors file to standard output and, if it refuses, why to standard error. Only
checkpoints of PyTorch's zip format are read, with ``weights_only``, and only if each global that
they name is on a list; what is not a dense tensor is left out.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from loopscope.inputs.pickles import PickleRefused, check_pickle
from loopscope.worker.sealed import protections

if TYPE_CHECKING:
    from torch import Tensor

TENSORS_MAX = 256
MEMORY_FREE_BYTES = 4 * 2**30
"""Memory of torch itself, before any weights."""
REFUSED = 3
"""Exit status of a refusal, whose words are on standard error."""

_TYPES = {
    "torch.float64": "F64", "torch.float32": "F32", "torch.float16": "F16",
    "torch.bfloat16": "BF16", "torch.int64": "I64", "torch.int32": "I32", "torch.bool": "BOOL",
}  # fmt: skip


def tensors_of(loaded: Any) -> dict[str, Tensor]:
    """Return the dense tensors of a checkpoint by name. Raises ``PickleRefused``."""
    import torch

    if not isinstance(loaded, dict):
        raise PickleRefused(f"it holds a {type(loaded).__name__}, expected named tensors")
    found = {}
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            continue
        if value.layout is not torch.strided or str(value.dtype) not in _TYPES or value.is_meta:
            raise PickleRefused(f"tensor {name[:80]!r} is not dense, or of the type {value.dtype}")
        found[name] = value.detach()
    if not 0 < len(found) <= TENSORS_MAX:
        raise PickleRefused(f"it holds {len(found)} named tensors, expected 1 to {TENSORS_MAX}")
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
        check_pickle(source)
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
    except PickleRefused as error:
        sys.stderr.write(str(error))
        sys.exit(REFUSED)


if __name__ == "__main__":
    main()
