"""Random generators named by a key: what is drawn depends on nothing that was drawn before.

No torch here: who shows a result draws as well, and the base installation has none.
"""

from __future__ import annotations

import hashlib

import numpy as np


def keyed_generator(*key: str | int) -> np.random.Generator:
    """Return a Philox generator whose 128-bit key is a hash of the parts of ``key``."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=number))
