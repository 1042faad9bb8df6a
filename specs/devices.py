"""Devices, as people write them."""

from __future__ import annotations

import re

EXPECTED = "expected cpu, cuda or cuda:N"


def device_name(text: str) -> str:
    """Return ``cpu`` or ``cuda:N``; plain ``cuda`` is the first card, as for torch.

    Raises ValueError with a message for the author of the file.
    """
    if text == "cuda":
        return "cuda:0"
    if re.fullmatch(r"cpu|cuda:(0|[1-9]\d?)", text):
        return text
    if re.fullmatch(r"mps(:\d+)?", text):
        raise ValueError(
            f"{text!r} cannot be used: sums are taken in float64, which Apple's GPUs do not have; "
            "use cpu"
        )
    raise ValueError(f"{text!r} is not a device; {EXPECTED}")
