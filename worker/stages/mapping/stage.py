"""Stage *mapping*: which fine latents belong to the coarse anchors, and the gate's answer.

Every number needs prompts, decoders or both: correlations and coverages run over the prompts of
the capture, cosines over all fine latents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from loopscope.numerics.gate.rule import (
    READINGS,
    ChildCounts,
    selective_latents,
    steered_first,
)
from loopscope.numerics.latents.features import LatentStatistics
from loopscope.numerics.steering.directions import arm_directions
from loopscope.specs.artifacts.gate import Directions
from loopscope.specs.artifacts.mapping import (
    COARSE_SUMMARY,
    COSINE_HISTOGRAM,
    DIRECTIONS,
    DIRECTIONS_VECTORS,
    GATE,
    PAIRS,
)
from loopscope.specs.payloads.mapping import MappingMetrics, MappingPayload
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.stages.mapping.anchors import Anchor, describe_anchors, pair_table
from loopscope.worker.stages.mapping.calibrated_gate import calibrated_gate
from loopscope.worker.stages.mapping.confirmation import confirm, hard_negative_cautions
from loopscope.worker.stages.mapping.gate_controls import gate_controls
from loopscope.worker.stages.mapping.gate_report import gate_report
from loopscope.worker.stages.mapping.gate_settings import write_gate_settings
from loopscope.worker.stages.mapping.pair import Pair, candidate_cosines, children_of_all
from loopscope.worker.stages.mapping.sides import Rules, Side, read_side
from loopscope.worker.stages.tables import joined, write_document, write_table


def run(payload: MappingPayload, context: StageContext, out: Path) -> MappingMetrics:
    """Write pairs, histogram, summary, gate and directions; return the metrics."""
    rules = Rules.of(payload)
    capture = context.artifact("capture", payload["capture"]["digest"])
    coarse = read_side(payload["coarse"], context)
    fine = read_side(payload["fine"], context)
    if coarse.decoder.shape[1] != fine.decoder.shape[1]:
        raise TerminalFailure(
            "DictionaryMismatch",
            f"the coarse decoder writes vectors of {coarse.decoder.shape[1]} numbers, the fine "
            f"one of {fine.decoder.shape[1]}; name two dictionaries of the same hook",
        )
    candidates = np.asarray(payload["coarse"]["candidates"], dtype=np.int64)
    pair = Pair.read(payload["geometry"], context)
    counts = children_of_all(coarse, fine, pair, rules, context)
    cosines = candidate_cosines(coarse, fine, candidates, pair, context)
    anchors = describe_anchors(coarse, fine, candidates, cosines, pair, rules, context)

    pairs = pair_table(anchors, coarse.aggregation, rules.selection.q_max)
    write_table(out, PAIRS, pairs)
    histograms = [anchor.histogram for anchor in anchors]
    write_table(out, COSINE_HISTOGRAM, joined(histograms, COSINE_HISTOGRAM.columns))
    summary = _coarse_summary(coarse, counts, rules)
    write_table(out, COARSE_SUMMARY, summary)
    below = [anchor.children for anchor in anchors]
    children = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *below]))
    confirmation = confirm(coarse, fine, candidates, children, rules, out)
    controls = gate_controls(coarse, anchors, cosines, pair, capture, rules, context)
    calibrated = calibrated_gate(coarse, candidates, controls, counts, pair, rules, context, out)
    if rules.sensitivity:
        write_gate_settings(coarse, fine, candidates, pair, calibrated, rules, context, out)
    cautions = hard_negative_cautions(coarse.statistics, candidates, payload["selection"])
    order = _steered_first(
        coarse.statistics, anchors, rules.gate.subfeatures_min, payload.get("anchor")
    )
    steered = order[0] if order else None
    gate = gate_report(
        coarse.statistics, anchors, steered, summary, rules, confirmation, calibrated, cautions
    )
    write_document(out, GATE, gate)
    directions = _write_directions(out, coarse, fine, [anchors[i] for i in order], rules.rule)
    found = pairs["reading"].tolist()
    edges = pairs["edge"]
    return {
        "verdict": gate["verdict"],
        "anchors": len(anchors),
        "passing": sum(entry["passes"] for entry in gate["anchors"]),
        "children": len(directions["children"]),
        "mean_rank": gate["mean_rank"],
        "percentile": gate["percentile"],
        "maximum_percentile": gate["maximum"]["percentile"],
        "null_anchors": gate["null"]["anchors"],
        "control_p": gate["control"]["p"],
        "stability": gate["stability"]["share"],
        "confirmed": gate["confirmed"],
        "confirmation": gate["confirmation"],
        "cautioned": gate["cautioned"],
        "share_of_all": gate["share_of_all"],
        "share_of_firing": gate["share_of_firing"],
        "edges_tested": int((edges != "not tested").sum()),
        "edges_significant": int((edges == "not independent").sum()),
        "empty_corner_count": gate["empty_corner"]["count"],
        "empty_corner_share": gate["empty_corner"]["share"],
        "readings": {name: found.count(name) for name in READINGS},
        "arms": sorted(directions["arms"]),
        "anchor": directions["anchor"],
        "anchor_rank": None if steered is None else gate["anchors"][steered]["rank"],
        "reason": gate["reason"],
    }


def _coarse_summary(coarse: Side, counts: ChildCounts, rules: Rules) -> dict[str, NDArray[Any]]:
    selective = selective_latents(coarse.statistics, rules.selection)
    return {
        "coarse": np.arange(coarse.all_prompts.latents, dtype=np.int64),
        "aggregation": np.full(coarse.all_prompts.latents, coarse.aggregation),
        "fires": coarse.all_prompts.firing > 0,
        "children_cosine_rule": counts.cosine,
        "children_strict_rule": counts.strict,
        "passes_cosine_rule": counts.cosine >= rules.gate.subfeatures_min,
        "passes_strict_rule": selective & (counts.strict >= rules.gate.subfeatures_min),
    }


def _write_directions(
    out: Path, coarse: Side, fine: Side, anchors: list[Anchor], rule: str
) -> Directions:
    """Write the arms' unit vectors and, as JSON, what they are and why one is missing.

    ``anchors`` come with the steered one first.
    """
    if not anchors:
        why = "no candidates passed the selection, so there is no anchor"
        nothing: Directions = {
            "anchor": None,
            "anchors": [],
            "children": [],
            "children_of_all": [],
            "arms": {},
            "missing": dict.fromkeys(("coarse", "fine", "multi"), why),
        }
        write_document(out, DIRECTIONS, nothing)
        return nothing
    best = anchors[0]
    children = best.children
    vectors = arm_directions(
        coarse.decoder[best.coarse].cpu(), fine.decoder[torch.from_numpy(children)].cpu()
    )
    save_file(
        {name: vectors[name].contiguous() for name in sorted(vectors)},
        out / DIRECTIONS_VECTORS.name,
    )
    what = {
        "coarse": f"unit decoder row of coarse latent {best.coarse}",
        "fine": f"normalised sum of the unit decoder rows of {len(children)} fine latents, "
        f"the children of coarse latent {best.coarse} by the {rule} rule",
        "multi": "normalised sum of the coarse and the fine direction",
    }
    description: Directions = {
        "anchor": best.coarse,
        "anchors": [anchor.coarse for anchor in anchors],
        "children": children.tolist(),
        "children_of_all": sorted({int(c) for anchor in anchors for c in anchor.children}),
        "arms": {name: what[name] for name in vectors},
        "missing": _missing_arms(set(vectors), best.coarse, len(children), rule),
    }
    write_document(out, DIRECTIONS, description)
    return description


def _steered_first(
    statistics: LatentStatistics, anchors: list[Anchor], least: int, named: int | None
) -> list[int]:
    """Return the places of the anchors, that of the steered one first; ``named`` is its latent."""
    latents = [anchor.coarse for anchor in anchors]
    scores = statistics.selectivity[latents] * statistics.firing_rate_target[latents]
    children = np.array([len(anchor.children) for anchor in anchors], dtype=np.int64)
    wanted = None if named is None else latents.index(named)
    return [int(place) for place in steered_first(scores, children, least, wanted)]


def _missing_arms(found: set[str], anchor: int, children: int, rule: str) -> dict[str, str]:
    missing = {}
    if "coarse" not in found:
        missing["coarse"] = f"the decoder row of coarse latent {anchor} is zero"
    if "fine" not in found:
        missing["fine"] = (
            "the unit decoder rows of the children cancel"
            if children
            else f"no fine latent is a child of coarse latent {anchor} by the {rule} rule"
        )
    if "multi" not in found:
        halves = [name for name in ("coarse", "fine") if name not in found]
        missing["multi"] = (
            f"there is no {' and no '.join(halves)} direction"
            if halves
            else "the coarse and the fine direction cancel"
        )
    return missing
