"""Decomposition: encode a capture with one dictionary, one table row per latent.

L0, FVU, the living latents and those near the edge describe the dictionary on the rows captured
(last tokens, or all tokens), those of the text on all tokens of the calibration text; the table's
other statistics run over prompts, after aggregation.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import scipy.sparse
from torch import Tensor

from loopscope.numerics.dictionaries.edge import encode_to_the_edge, encoder_norms
from loopscope.numerics.dictionaries.sparse import (
    BLOCK_BYTES_MAX,
    ReconstructionSums,
    SparseDictionary,
    block_shape,
)
from loopscope.numerics.latents.features import aggregate_prompts, latent_statistics
from loopscope.specs.artifacts.decomposition import ACTIVATIONS, FEATURES, PROMPTS
from loopscope.specs.payloads.decomposition import DecompositionMetrics, DecompositionPayload
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.stages.decomposition.calibration import (
    calibration_preflight,
    latents_preflight,
)
from loopscope.worker.stages.decomposition.captured import CapturedRows, RowsRead
from loopscope.worker.stages.decomposition.nearby import nearby
from loopscope.worker.stages.prompts import prompt_rows
from loopscope.worker.stages.tables import read_sparse, write_sparse, write_table

SHARD_MULTIPLICATIONS = 10**11
"""Encoder work of one shard: about two seconds on two cores, whatever the widths."""
ROWS_PER_SHARD_MIN, ROWS_PER_SHARD_MAX = 32, 8192
_PHASES = {"counted": "Encoding", "text": "Calibrating"}


class Tried(TypedDict, total=False):
    """The metrics that only a dictionary which does not reconstruct has."""

    nearby_fvu: dict[str, float]
    nearby: str


def run(payload: DecompositionPayload, context: StageContext, out: Path) -> DecompositionMetrics:
    """Write activations, features and the prompts with their split; return the metrics.

    Raises TerminalFailure ``DictionaryMismatch``, ``NotFinite`` or ``PreflightFailed``.
    """
    capture = context.artifact("capture", payload["capture"]["digest"])
    rows = CapturedRows.read(capture)
    dictionary = context.dictionary(payload["dictionary"]).to(context.device)
    if dictionary.d_in != rows.residual.shape[1]:
        raise TerminalFailure(
            "DictionaryMismatch",
            f"the dictionary reads vectors of {dictionary.d_in} numbers, the capture holds "
            f"{rows.residual.shape[1]}; name a dictionary that was trained on this hook",
        )
    _check_written(dictionary, rows.written)
    read = RowsRead.of(dictionary, payload, capture, rows, context)
    _, on_text, _ = _encode_in_shards(read.text, rows.text_written, dictionary, context, "text")
    tried = nearby(dictionary, capture, context) if on_text.fvu > 1 else None
    preflights = {
        **calibration_preflight(payload, on_text, tried.words if tried else None),
        **latents_preflight(dictionary, *read.compared, context),
    }
    activations, sums, near_edge = _encode_in_shards(
        read.captured, rows.written, dictionary, context
    )
    aggregation = payload["aggregation"]
    table = {**rows.prompts, "split": np.asarray(payload["splits"])}
    if "groups" in payload:
        table["group"] = np.asarray(payload["groups"], dtype=np.int64)
    write_table(out, PROMPTS, table)
    prompts = aggregate_prompts(
        activations, rows.prompt_index, rows.position, len(table["split"]), aggregation
    )
    write_sparse(out / ACTIVATIONS.name, prompts)
    discover, _ = prompt_rows(prompts, table)
    statistics = latent_statistics(discover)
    write_table(
        out,
        FEATURES,
        {
            "latent": np.arange(dictionary.d_sae, dtype=np.int64),
            "aggregation": np.full(dictionary.d_sae, aggregation),
            **statistics.columns(),
            "text_rate": on_text.firings / on_text.rows,
        },
    )
    return {
        "l0": sums.l0,
        "fvu": _known(sums.fvu),
        "cosine": sums.cosine,
        "active": sums.active,
        "near_edge": near_edge,
        "alive": sums.alive,
        "dead": dictionary.d_sae - sums.alive,
        "d_sae": dictionary.d_sae,
        "rows": sums.rows,
        "population": rows.population,
        "test_prompts": int((table["split"] == "test").sum()),
        "text_tokens": on_text.rows,
        "text_l0": on_text.l0,
        "text_fvu": _known(on_text.fvu),
        "preflights": preflights,
        **(Tried(nearby_fvu=dict(tried.fvu), nearby=tried.words) if tried else Tried()),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _check_written(dictionary: SparseDictionary, written: Tensor) -> None:
    if dictionary.d_out != written.shape[1]:
        raise TerminalFailure(
            "DictionaryMismatch",
            f"the dictionary writes vectors of {dictionary.d_out} numbers, the capture holds "
            f"{written.shape[1]} where it writes; name a dictionary that was trained there",
        )


def _encode_in_shards(
    read: Tensor,
    written: Tensor,
    dictionary: SparseDictionary,
    context: StageContext,
    kind: Literal["counted", "text"] = "counted",
) -> tuple[scipy.sparse.csr_array, ReconstructionSums, int]:
    """Encode all rows, shard by sealed shard named after ``kind``: a crash costs one shard.

    ``read`` are as the dictionary takes them, ``written`` the rows that are reconstructed.

    Returns the activations, the sums, and how many active latents lie near the edge.
    """
    size = rows_per_shard(dictionary.d_in, dictionary.d_sae)
    total, near_edge = read.shape[0], 0
    norms = encoder_norms(dictionary)
    blocks = []
    sums = ReconstructionSums.empty(dictionary.d_out, dictionary.d_sae)
    for start in range(0, total, size):
        context.progress(_PHASES[kind], start, total, "rows")
        # shards of before the counting were called encoded-…: they are made again
        name = f"{kind}-{start:09d}.safetensors"
        part = slice(start, start + size)
        write = partial(_write_shard, read[part], written[part], dictionary, norms, context)
        path = context.shards.sealed(name) or context.shards.seal(name, write)
        block, shard_sums, shard_near_edge = _read_shard(path)
        blocks.append(block)
        sums = sums.merge(shard_sums)
        near_edge += shard_near_edge
    context.progress(_PHASES[kind], total, total, "rows")
    return scipy.sparse.vstack(blocks, format="csr"), sums, near_edge


def rows_per_shard(d_in: int, d_sae: int) -> int:
    """Return how many rows are encoded at once: a function of the widths alone."""
    fitting = SHARD_MULTIPLICATIONS // (d_in * d_sae)
    return max(ROWS_PER_SHARD_MIN, min(ROWS_PER_SHARD_MAX, fitting))


def _write_shard(
    x: Tensor,
    written: Tensor,
    dictionary: SparseDictionary,
    norms: Tensor,
    context: StageContext,
    path: Path,
) -> None:
    on_device = x.to(context.device)
    shape = block_shape(len(x), dictionary.d_sae, BLOCK_BYTES_MAX // context.batch_divisor)
    activations, near_edge = encode_to_the_edge(dictionary, on_device, *shape, norms)
    rebuilt = dictionary.reconstruct(on_device, activations)
    sums = ReconstructionSums.of(written.to(context.device), rebuilt, activations)
    if not np.isfinite([sums.spread, sums.error]).all():
        raise TerminalFailure(
            "NotFinite",
            "the dictionary's activations or reconstructions overflow on this capture; check "
            "that it was trained on this model and hook",
        )
    extra = {
        "sums_mean": sums.mean,
        "sums_spread_error_cosines": np.asarray([sums.spread, sums.error, sums.cosines]),
        "near_edge": np.asarray([near_edge]),
    }
    write_sparse(path, activations, extra)


def _read_shard(path: Path) -> tuple[scipy.sparse.csr_array, ReconstructionSums, int]:
    activations, extra = read_sparse(path)
    spread, error, cosines = extra["sums_spread_error_cosines"].tolist()
    sums = ReconstructionSums(
        rows=activations.shape[0],
        mean=extra["sums_mean"],
        spread=spread,
        error=error,
        cosines=cosines,
        active=activations.nnz,
        firings=np.bincount(activations.indices, minlength=activations.shape[1]),
    )
    return activations, sums, int(extra["near_edge"][0])
