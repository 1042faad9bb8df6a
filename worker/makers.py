"""Makers of shards: the processor or card with its library, whose last bits are its own.

Shards of one artifact come from one maker. Who would rather have a job go on anywhere than have it
begin anew on another kind of node sets ``LOOPSCOPE_MIXED_SHARDS=1`` on every node: all shards are
then one's own, whoever made them, and the manifest names the makers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from loopscope.state.artifacts.store import KeptShards
from loopscope.worker.shards import Shards

MIXED = "LOOPSCOPE_MIXED_SHARDS"
_MARK = "made-by."


def processor_of(device: str) -> str:
    """Return what computes on a device, as torch calls it: ``AVX2``, or the name of a card."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability()


def maker_of(device: str) -> str:
    """Return the processor or card and the version of torch, as a part of a file's name."""
    words = f"{processor_of(device)} torch {torch.__version__}"
    return re.sub(r"[^A-Za-z0-9.+]+", "-", words).strip("-")


def shards_of(
    kept: KeptShards,
    device: str,
    on_sealed: Callable[[], None] = lambda: None,
    environment: Mapping[str, str] = os.environ,
) -> Shards:
    """Return the shards of an action that this device may go on with."""
    if environment.get(MIXED, "") != "1":
        return Shards(kept, on_sealed, maker_of(device))
    maker = maker_of(device)
    if kept.sealed(_MARK + maker) is None:
        kept.seal(_MARK + maker, lambda path: _named(path, maker))
    return Shards(kept, on_sealed)


def kind_of(device: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return what workers have in common that may make shards of one artifact at once."""
    return "any kind" if environment.get(MIXED, "") == "1" else maker_of(device)


def makers_of(kept: KeptShards) -> list[str]:
    """Return who worked on an action whose shards may be mixed; empty where they may not."""
    return [name.removeprefix(_MARK) for name in kept.names() if name.startswith(_MARK)]


def _named(path: Path, maker: str) -> None:
    path.write_text(maker, encoding="utf-8")
