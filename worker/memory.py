"""Recognition of out-of-memory errors, which every library words differently."""

from __future__ import annotations

import errno

import torch

_WORDS = (
    "can't allocate memory",  # torch on the CPU: "DefaultCPUAllocator: can't allocate memory"
    "cannot allocate memory",  # the system's own words, for example from safetensors' mmap
    "not enough memory",
    "out of memory",  # CUDA
    "unable to allocate",
    "cublas_status_alloc_failed",
    "bad_alloc",
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that it was raised from, means that memory ran out."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (MemoryError, torch.OutOfMemoryError)):
            return True
        if isinstance(seen, OSError) and seen.errno == errno.ENOMEM:
            return True
        words = str(seen).lower()
        if isinstance(seen, (RuntimeError, OSError)) and any(word in words for word in _WORDS):
            return True
        seen = seen.__cause__
    return False
