"""The gate of one mapping: counts of children, and what they are compared with."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loopscope.numerics.gate.calibration import (
    Calibration,
    Counts,
    Question,
    Selected,
    best,
    calibrate,
)
from loopscope.numerics.gate.controls import Control
from loopscope.numerics.gate.matching import Comparison, Covariates, MatchedNull
from loopscope.numerics.gate.rule import ChildCounts, GateRules, SelectionPower, Verdict
from loopscope.numerics.latents.mapping import Indices
from loopscope.specs.artifacts import gate as records
from loopscope.specs.artifacts.mapping import GATE_DRAWS
from loopscope.worker.context import StageContext
from loopscope.worker.stages.mapping.gate_controls import control_record
from loopscope.worker.stages.mapping.pair import Pair
from loopscope.worker.stages.mapping.sides import Rules, Side
from loopscope.worker.stages.tables import write_table


@dataclass(frozen=True)
class CalibratedGate:
    """The verdict, what speaks against a firmer one, and the numbers of ``gate.json``."""

    verdict: Verdict
    doubts: list[str]
    ranks: list[float | None]
    """Of each candidate among itself and its own matched anchors, 0 to 100."""
    expected: list[float | None]
    """Children that a latent of the candidate's rate over text, norm and density has."""
    record: records.Comparison
    covariates: Covariates
    question: Question
    halves: list[tuple[Selected, ...]]
    """What each half of the prompts selects: by the declared q, then by each other one."""


def calibrated_gate(
    coarse: Side,
    candidates: Indices,
    controls: list[Control],
    children: ChildCounts,
    pair: Pair,
    rules: Rules,
    context: StageContext,
    out: Path,
) -> CalibratedGate:
    """Compare the candidates' children with null, controls and halves; write the draws.

    Under the strict rule anchors are compared by children that correlate, selective or not: an
    anchor of another concept cannot have children that are selective for this one.
    """
    covariates = Covariates.given(pair.coarse_norm, pair.crowding, coarse.text_rate, coarse.rows)
    counts = (
        Counts(children.cosine, Comparison.of(children.cosine, covariates))
        if rules.rule == "cosine"
        else Counts(children.strict, Comparison.of(children.correlated, covariates))
    )
    question = Question(
        rules.selection,
        rules.top,
        rules.gate,
        rules.resamples,
        rules.seed,
        other_q=rules.other_q,
    )
    found = calibrate(
        coarse.rows,
        candidates,
        counts,
        controls,
        question,
        lambda done: context.progress("Resampling", done, rules.resamples, "resamples"),
    )
    context.progress("Resampling", rules.resamples, rules.resamples, "resamples")
    _write_draws(found, out)
    expected = counts.compared.expected
    return CalibratedGate(
        found.verdict,
        found.doubts,
        [_known(rank) for rank in found.null.ranks],
        [None if expected is None else float(expected[latent]) for latent in candidates],
        _record(found, rules.gate, best(counts.compared.children, candidates)),
        covariates,
        question,
        [drawn.selected for drawn in found.resamples],
    )


def _record(found: Calibration, gate: GateRules, compared: int) -> records.Comparison:
    """Return the numbers of ``gate.json`` that compare; what is not known is None."""
    evidence = found.evidence
    return {
        "best_count": evidence.best_count,
        "selection": _power_record(evidence.power),
        "mean_rank": _known(evidence.mean_rank),
        "percentile": _known(evidence.percentile),
        "min_percentile": gate.percentile_min,
        "rank_rule_passes": evidence.percentile >= gate.percentile_min,
        "null": _null_record(found.null, gate.null_anchors),
        "maximum": _maximum_record(found.null, compared),
        "control": control_record(found.controls),
        "stability": {
            "share": evidence.stability,
            "min_share": gate.stability_min,
            "resamples": len(found.resamples),
            "outcome": found.outcome,
            "outcomes": dict(sorted(Counter(r.outcome for r in found.resamples).items())),
        },
    }


def _power_record(power: SelectionPower) -> records.SelectionPower:
    return {
        "smallest_p": power.smallest_p,
        "tested": power.tested,
        "needed": power.needed,
        "top": power.top,
        "prompts_needed": power.prompts_needed,
    }


def _null_record(null: MatchedNull, wanted: int) -> records.MatchedSets:
    differences = {name: _known(value) for name, value in null.differences.items()}
    return {
        "anchors": null.draws,
        "wanted": wanted,
        "eligible": null.eligible,
        "rate_difference": differences["text_rate"],
        "norm_difference": differences["norm"],
        "density_difference": differences["density"],
        "median_mean_rank": float(np.median(null.mean_ranks)) if null.draws else None,
        "at_least_as_high": int((null.mean_ranks >= null.mean_rank).sum()),
    }


def _maximum_record(null: MatchedNull, compared: int) -> records.LargestCount:
    """Return how the best candidate's count stands among the best of matched sets."""
    return {
        "count": compared,
        "percentile": _known(null.percentile_of_best(compared)),
        "median_count": float(np.median(null.best)) if null.draws else None,
        "max_count": int(null.best.max()) if null.draws else None,
        "at_least_as_many": int((null.best >= compared).sum()),
    }


def _write_draws(found: Calibration, out: Path) -> None:
    """Write every draw behind the percentile, the control's p and the stability."""
    null, resamples = found.null, found.resamples
    parts = {
        "matched anchors": (null.best, null.mean_ranks, np.full(null.draws, np.nan)),
        **{
            str(control.kind): (control.counts, *np.full((2, len(control.counts)), np.nan))
            for control in found.controls
        },
        "resample": (
            np.array([drawn.best_count for drawn in resamples]),
            np.array([drawn.mean_rank for drawn in resamples]),
            np.array([drawn.percentile for drawn in resamples]),
        ),
    }
    counts, ranks, percentiles = (
        np.concatenate(part) for part in zip(*parts.values(), strict=True)
    )
    sizes = {name: len(part) for name, (part, *_) in parts.items()}
    write_table(
        out,
        GATE_DRAWS,
        {
            "source": np.repeat(list(sizes), list(sizes.values())),
            "draw": np.concatenate([np.arange(size) for size in sizes.values()]),
            "best_count": counts.astype(np.int64),
            "mean_rank": ranks,
            "percentile": percentiles,
        },
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
