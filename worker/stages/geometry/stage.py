"""Geometry: every coarse decoder row beside every fine one, once for all concepts.

Shards are groups of coarse latents: each reads the fine decoder once, from its first row to its
last. What is kept of a group is small, so neither memory nor shards grow with the fine width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from loopscope.numerics.dictionaries.sparse import SparseDictionary
from loopscope.numerics.gate.matching import crowding
from loopscope.numerics.gate.row_law import RowLaw
from loopscope.numerics.latents.mapping import COSINE_BYTES_MAX, row_norms
from loopscope.numerics.latents.neighbours import Neighbours, joined, neighbours_of
from loopscope.specs.artifacts.geometry import DECODERS, NEIGHBOURS
from loopscope.specs.payloads.geometry import GeometryMetrics, GeometryPayload
from loopscope.state.failures import TerminalFailure
from loopscope.worker.block_sizes import recorded_sizes
from loopscope.worker.context import StageContext

SHARD_MULTIPLICATIONS = 10**12
"""Products of one shard: seconds to a minute, whatever the widths."""
COARSE_PER_SHARD_MIN, COARSE_PER_SHARD_MAX = 64, 2_048
FINE_PER_BLOCK = 4_096


def block_sizes(d_in: int, coarse: int, fine: int) -> dict[str, int]:
    """Return how many coarse rows make a shard, and how many fine rows a block.

    At 2,304 numbers a row, 2,048 by 4,096 keeps a product at nine tenths of what the library's
    kernels reach on a processor, and a block of cosines at 32 MB.
    """
    fitting = SHARD_MULTIPLICATIONS // max(1, d_in * fine)
    rows = max(COARSE_PER_SHARD_MIN, min(COARSE_PER_SHARD_MAX, fitting))
    return {"coarse_per_shard": rows, "fine_per_block": FINE_PER_BLOCK}


def run(payload: GeometryPayload, context: StageContext, out: Path) -> GeometryMetrics:
    """Write neighbours and what the gate needs of each decoder; return the metrics.

    Raises TerminalFailure ``DictionaryMismatch`` for decoders of two widths.
    """
    coarse = context.dictionary(payload["coarse"]).to(context.device)
    fine = context.dictionary(payload["fine"]).to(context.device)
    width = int(fine.w_dec.shape[1])
    if coarse.w_dec.shape[1] != width:
        raise TerminalFailure(
            "DictionaryMismatch",
            f"the coarse decoder writes vectors of {coarse.w_dec.shape[1]} numbers, the fine "
            f"one of {width}; name two dictionaries of the same hook",
        )
    sizes = recorded_sizes(context.shards, block_sizes(width, coarse.d_sae, fine.d_sae))
    groups = _neighbours(coarse, fine, sizes, context)
    decoders = _shard("described.safetensors", context, lambda: _decoders(coarse, fine, context))
    neighbours = joined([_read(path) for path in groups])
    save_file(_tensors(neighbours), out / NEIGHBOURS.name)
    found = load_file(decoders)
    save_file(found, out / DECODERS.name)
    law = RowLaw(found["law_mean"], found["law_axes"], found["law_variances"])
    return {
        "d_in": width,
        "coarse": coarse.d_sae,
        "fine": fine.d_sae,
        "pairs": len(neighbours.fine),
        "bounded": int(neighbours.is_bounded.sum()),
        "complete_from": float(neighbours.floor.max()),
        "effective_dimensions": law.effective_dimensions,
    }


def _neighbours(
    coarse: SparseDictionary, fine: SparseDictionary, sizes: dict[str, int], context: StageContext
) -> list[Path]:
    """Return the shards of all groups of coarse latents, made where they are not there yet."""
    step = sizes["coarse_per_shard"]
    width = max(1, sizes["fine_per_block"] // context.batch_divisor)
    blocks = -(-fine.d_sae // width)
    starts = range(0, coarse.d_sae, step)
    total = len(starts) * blocks
    found = []
    for number, start in enumerate(starts):
        context.progress("ComparingDecoders", number * blocks, total, "blocks")

        def note(done: int, before: int = number * blocks) -> None:
            fine.release()
            context.progress("ComparingDecoders", before + -(-done // width), total, "blocks")

        rows = coarse.w_dec[start : start + step]
        make = partial(_group, rows, fine.w_dec, width, note)
        found.append(_shard(f"neighbours-{start:09d}.safetensors", context, make))
        coarse.release()
    context.progress("ComparingDecoders", total, total, "blocks")
    return found


def _group(
    rows: Tensor, fine: Tensor, width: int, note: Callable[[int], None]
) -> dict[str, NDArray[np.generic]]:
    return _tensors(neighbours_of(rows, fine, width, note))


def _decoders(
    coarse: SparseDictionary, fine: SparseDictionary, context: StageContext
) -> dict[str, NDArray[np.generic]]:
    total = 2 * coarse.d_sae + 3 * fine.d_sae

    def note(before: int, dictionary: SparseDictionary) -> Callable[[int], None]:
        def noted(done: int) -> None:
            dictionary.release()
            context.progress("DescribingDecoders", before + done, total, "rows")

        return noted

    bytes_max = COSINE_BYTES_MAX // context.batch_divisor
    density = crowding(coarse.w_dec, bytes_max, note(0, coarse))
    law = RowLaw.of_decoder(fine.w_dec, note(coarse.d_sae, fine))
    coarse_norm = row_norms(coarse.w_dec, note(coarse.d_sae + 2 * fine.d_sae, coarse))
    fine_norm = row_norms(fine.w_dec, note(2 * coarse.d_sae + 2 * fine.d_sae, fine))
    return {
        "coarse_norm": coarse_norm.cpu().numpy(),
        "fine_norm": fine_norm.cpu().numpy(),
        "crowding": density,
        "law_mean": law.mean,
        "law_axes": law.axes,
        "law_variances": law.variances,
    }


def _shard(
    name: str, context: StageContext, make: Callable[[], dict[str, NDArray[np.generic]]]
) -> Path:
    def write(path: Path) -> None:
        save_file(dict(sorted(make().items())), path)

    return context.shards.sealed(name) or context.shards.seal(name, write)


def _tensors(found: Neighbours) -> dict[str, NDArray[np.generic]]:
    return {
        "cosine": found.cosine,
        "fine": found.fine,
        "floor": found.floor,
        "histogram": found.histogram,
        "indptr": found.indptr,
    }


def _read(path: Path) -> Neighbours:
    return Neighbours(**load_file(path))
