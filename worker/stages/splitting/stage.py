"""Stage *splitting*: what becomes of the coarse candidates, and where the fine ones come from.

Edges are looked for around the candidates of both sides: all children of the coarse ones, and all
parents of these and of the fine candidates. Nothing else is needed to say what became of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from loopscope.numerics.latents.mapping import ActivationColumns, Indices
from loopscope.numerics.latents.neighbours import Neighbours
from loopscope.numerics.latents.splits import DiscoverRows
from loopscope.numerics.splitting.edges import (
    EdgeRules,
    Edges,
    NearPairs,
    dealt_edge_counts,
    edge_stability,
    edges_of,
)
from loopscope.numerics.splitting.fates import (
    COARSE_FATES,
    FINE_FATES,
    CoarseLatent,
    FineLatent,
    coarse_fates,
    fine_fates,
)
from loopscope.numerics.statistics.multiple_tests import Floats, exceedance
from loopscope.specs.artifacts.decomposition import ACTIVATIONS, FEATURES
from loopscope.specs.artifacts.geometry import NEIGHBOURS
from loopscope.specs.artifacts.splitting import EDGES, LATENTS, SPLITTING, Splitting
from loopscope.specs.payloads.mapping import CoarseReference
from loopscope.specs.payloads.splitting import SplittingMetrics, SplittingPayload
from loopscope.worker.context import StageContext
from loopscope.worker.stages.prompts import prompt_rows, read_prompts
from loopscope.worker.stages.tables import (
    Columns,
    read_columns,
    read_sparse,
    write_document,
    write_table,
)


@dataclass(frozen=True)
class _Side:
    """One resolution: its discover prompts, as rows and as columns, and its candidates."""

    rows: DiscoverRows
    columns: ActivationColumns
    candidates: Indices
    firing_rate_target: Floats

    @staticmethod
    def read(side: CoarseReference, context: StageContext) -> _Side:
        folder = context.artifact("decomposition", side["digest"])
        activations, _ = read_sparse(folder / ACTIVATIONS.name)
        rows, _ = prompt_rows(activations, read_prompts(side, context))
        return _Side(
            rows,
            ActivationColumns.of(rows),
            np.asarray(side["candidates"], dtype=np.int64),
            read_columns(folder / FEATURES.name)["firing_rate_target"],
        )


def run(payload: SplittingPayload, context: StageContext, out: Path) -> SplittingMetrics:
    """Write edges, fates and what chance makes of them; return the metrics."""
    coarse, fine = (_Side.read(payload[side], context) for side in ("coarse", "fine"))
    rules = EdgeRules(payload["minCosine"], payload["minCorrelation"], payload["twinCosine"])
    geometry = context.artifact("geometry", payload["geometry"]["digest"])
    neighbours = Neighbours(**load_file(geometry / NEIGHBOURS.name))
    near, edges = _edges(neighbours, coarse, fine, rules)
    seed, draws = payload["seed"], payload["draws"]
    chance = dealt_edge_counts(
        near, coarse.columns, fine.columns, rules, (seed,), draws,
        lambda done: context.progress("DealingActivations", done, draws, "draws"),
    )  # fmt: skip
    context.progress("DealingActivations", draws, draws, "draws")
    stability = edge_stability(edges, coarse.rows, fine.rows, rules, (seed,), payload["resamples"])
    starts = coarse_fates(
        coarse.candidates.tolist(), edges, coarse.columns, fine.columns, payload["minHole"]
    )
    children = {child for one in starts for child in one.children}
    ends = fine_fates(sorted(children | set(fine.candidates.tolist())), edges)
    _write_edges(out, edges, stability)
    _write_latents(out, starts, ends, coarse, fine)
    told: Splitting = {
        "coarse": {fate: sum(one.fate == fate for one in starts) for fate in COARSE_FATES},
        "fine": {fate: sum(one.fate == fate for one in ends) for fate in FINE_FATES},
        "pairs": len(near.fine),
        "edges": len(edges),
        "direct": int(edges.direct.sum()),
        "chance": chance.tolist(),
        "p": exceedance(chance, len(edges)),
        "stability": float(stability.mean()) if len(edges) else None,
        "unlisted": int((neighbours.floor > np.float32(rules.cosine_min)).sum()),
    }
    write_document(out, SPLITTING, told)
    return {
        "edges": told["edges"],
        "direct": told["direct"],
        "coarse": told["coarse"],
        "fine": told["fine"],
        "by_chance": float(chance.mean()),
        "p": told["p"],
        "stability": told["stability"],
        "unlisted": told["unlisted"],
    }


def _edges(
    neighbours: Neighbours, coarse: _Side, fine: _Side, rules: EdgeRules
) -> tuple[NearPairs, Edges]:
    """Return the near pairs around the candidates of both sides, and the edges among them.

    Whether a parent's twin is another latent is known from all its own children.
    """
    row = np.repeat(np.arange(neighbours.rows), np.diff(neighbours.indptr))
    aligned = neighbours.cosine >= np.float32(rules.cosine_min)
    listed = NearPairs(
        row[aligned],
        neighbours.fine[aligned].astype(np.int64),
        neighbours.cosine[aligned].astype(np.float64),
    )
    below = listed.taken(np.isin(listed.coarse, coarse.candidates))
    children = edges_of(below, coarse.columns, fine.columns, rules).pairs.fine
    is_end = np.isin(listed.fine, np.union1d(children, fine.candidates))
    parents = edges_of(listed.taken(is_end), coarse.columns, fine.columns, rules).pairs.coarse
    around = listed.taken(is_end | np.isin(listed.coarse, parents))
    edges = edges_of(around, coarse.columns, fine.columns, rules)
    ends = edges.taken(np.isin(edges.pairs.fine, listed.fine[is_end]))
    return listed.taken(is_end | np.isin(listed.coarse, coarse.candidates)), ends


def _write_edges(out: Path, edges: Edges, stability: Floats) -> None:
    columns: Columns = {
        "coarse": edges.pairs.coarse,
        "fine": edges.pairs.fine,
        "cosine": edges.pairs.cosine.astype(np.float32),
        "correlation": edges.correlation,
        "direct": edges.direct,
        "twin": edges.twin,
        "stability": stability,
    }
    write_table(out, EDGES, columns)


def _write_latents(
    out: Path, starts: list[CoarseLatent], ends: list[FineLatent], coarse: _Side, fine: _Side
) -> None:
    candidates = set(fine.candidates.tolist())
    nothing = [float("nan")] * len(ends)
    names = [one.latent for one in starts], [one.latent for one in ends]
    rates = coarse.firing_rate_target[names[0]], fine.firing_rate_target[names[1]]
    columns: Columns = {
        "side": np.array(["coarse"] * len(starts) + ["fine"] * len(ends), dtype=np.str_),
        "latent": np.array([*names[0], *names[1]], dtype=np.int64),
        "candidate": np.array(
            [*(True for _ in starts), *(one in candidates for one in names[1])], dtype=np.bool_
        ),
        "fate": np.array(
            [*(one.fate for one in starts), *(one.fate for one in ends)], dtype=np.str_
        ),
        "relatives": np.array(
            [*(len(one.children) for one in starts), *(len(one.parents) for one in ends)],
            dtype=np.int64,
        ),
        "hole": np.array([*(one.hole for one in starts), *nothing], dtype=np.float64),
        "firing_rate_target": np.concatenate(rates),
    }
    write_table(out, LATENTS, columns)
