"""The two decoders of a mapping: what is known of them from their geometry, and what is not.

The geometry lists every pair from a cosine on. Children above it are counted from the lists;
where a rule asks for less, or a list was too long to be kept, cosines are made anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from loopscope.numerics.gate.counting import count_children, count_pairs
from loopscope.numerics.gate.row_law import RowLaw
from loopscope.numerics.gate.rule import ChildCounts
from loopscope.numerics.latents.mapping import (
    COSINE_BYTES_MAX,
    CosineBlock,
    Indices,
    cosine_block_shape,
    inverse_norms,
    made_unit,
)
from loopscope.numerics.latents.neighbours import Neighbours
from loopscope.numerics.statistics.multiple_tests import Floats
from loopscope.specs.artifacts.geometry import DECODERS, NEIGHBOURS
from loopscope.specs.payloads.references import NeededArtifact
from loopscope.worker.context import StageContext
from loopscope.worker.stages.mapping.sides import Rules, Side

FINE_PER_BLOCK = 4_096


@dataclass(frozen=True)
class Pair:
    """What a geometry holds: neighbours, norms, crowding of the coarse rows, law of the fine ones.

    ``coarse_norm`` and ``fine_norm`` are one entry a latent, the latter in float32.
    """

    neighbours: Neighbours
    coarse_norm: Floats
    fine_norm: NDArray[np.float32]
    crowding: Floats
    law: RowLaw

    @staticmethod
    def read(geometry: NeededArtifact, context: StageContext) -> Pair:
        """Read the shared artifact."""
        folder: Path = context.artifact("geometry", geometry["digest"])
        decoders = load_file(folder / DECODERS.name)
        return Pair(
            neighbours=Neighbours(**load_file(folder / NEIGHBOURS.name)),
            coarse_norm=decoders["coarse_norm"].astype(np.float64),
            fine_norm=decoders["fine_norm"].astype(np.float32),
            crowding=decoders["crowding"],
            law=RowLaw(decoders["law_mean"], decoders["law_axes"], decoders["law_variances"]),
        )


def candidate_cosines(
    coarse: Side, fine: Side, candidates: Indices, pair: Pair, context: StageContext
) -> NDArray[np.float32]:
    """Return the cosines of each candidate to all fine latents, float32 [candidates, fine].

    Those that the geometry lists are its own, so that both agree on who is a child.
    """
    rows = coarse.decoder[torch.from_numpy(candidates)]
    unit = rows * inverse_norms(rows)[:, None]
    found = np.empty((len(candidates), len(fine.decoder)), dtype=np.float32)
    for start in range(0, len(fine.decoder), FINE_PER_BLOCK):
        span = slice(start, start + FINE_PER_BLOCK)
        found[:, span] = (unit @ fine.decoder[span].T).cpu().numpy()
        fine.release()
        context.progress("ComparingCandidates", start, len(fine.decoder), "latents")
    norm = pair.fine_norm
    np.divide(found, norm, out=found, where=norm > 0)
    np.clip(found, -1.0, 1.0, out=found)
    for row, latent in zip(found, candidates, strict=True):
        floor = pair.neighbours.floor[latent]
        row[row >= floor] = np.nextafter(floor, np.float32(-2))
        listed, values = pair.neighbours.of(int(latent))
        row[listed] = values
    return found


def children_of_all(
    coarse: Side, fine: Side, pair: Pair, rules: Rules, context: StageContext
) -> ChildCounts:
    """Return the children of every coarse latent, from the lists where these go low enough."""
    neighbours = pair.neighbours
    cut = np.float32(rules.child.cosine_min)
    known = neighbours.floor <= cut
    row = np.repeat(np.arange(neighbours.rows), np.diff(neighbours.indptr))
    aligned = (neighbours.cosine >= cut) & known[row]
    pairs = row[aligned], neighbours.fine[aligned].astype(np.int64)
    counts = count_pairs(
        pairs,
        neighbours.rows,
        0,
        coarse.all_prompts,
        fine.all_prompts,
        fine.statistics.selectivity,
        rules.child,
    )
    unknown = np.flatnonzero(~known)
    if unknown.size:
        _count_anew(unknown, counts, coarse, fine, rules, context)
    return counts


def _count_anew(
    latents: Indices,
    counts: ChildCounts,
    coarse: Side,
    fine: Side,
    rules: Rules,
    context: StageContext,
) -> None:
    """Pass over the cosines of these coarse latents, and put their children into ``counts``."""
    bytes_max = COSINE_BYTES_MAX // context.batch_divisor
    height, width = cosine_block_shape(latents.size, len(fine.decoder), bytes_max)
    width = min(width, FINE_PER_BLOCK)
    total = -(-latents.size // height) * -(-len(fine.decoder) // width)
    done = 0
    for start in range(0, latents.size, height):
        chosen = latents[start : start + height]
        rows = coarse.decoder[torch.from_numpy(chosen)]
        unit = rows * inverse_norms(rows)[:, None]
        left = coarse.all_prompts.taken(chosen)
        space = torch.empty_like(fine.decoder[:width])
        for first in range(0, len(fine.decoder), width):
            context.progress("ComparingDecoders", done, total, "blocks")
            block = made_unit(fine.decoder[first : first + width], space)
            cosines = (unit @ block.T).clamp_(-1.0, 1.0)
            fine.release()
            found = count_children(
                CosineBlock(0, first, cosines),
                left,
                fine.all_prompts,
                fine.statistics.selectivity,
                rules.child,
            )
            counts.cosine[chosen] += found.cosine
            counts.correlated[chosen] += found.correlated
            counts.strict[chosen] += found.strict
            done += 1
    context.progress("ComparingDecoders", total, total, "blocks")
