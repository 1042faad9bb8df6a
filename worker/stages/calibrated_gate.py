"""The gate of one mapping: counts of children, and what they are compared with."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopscope.numerics.calibration import (
    Calibration,
    Counts,
    MatchedNull,
    Question,
    best,
    calibrate,
    percentile_of_each,
)
from loopscope.numerics.controls import Control
from loopscope.numerics.gate import ChildCounts, GateRules, Verdict
from loopscope.numerics.mapping import Indices
from loopscope.worker.context import StageContext
from loopscope.worker.stages.gate_controls import control_record
from loopscope.worker.stages.sides import Rules, Side
from loopscope.worker.stages.tables import write_table


@dataclass(frozen=True)
class CalibratedGate:
    """The verdict, what speaks against a firmer one, and the numbers of ``gate.json``."""

    verdict: Verdict
    doubts: list[str]
    percentiles: list[float | None]
    """Of each candidate among its own matched anchors."""
    record: dict[str, Any]


def calibrated_gate(
    coarse: Side,
    candidates: Indices,
    controls: list[Control],
    children: ChildCounts,
    rules: Rules,
    context: StageContext,
    out: Path,
) -> CalibratedGate:
    """Compare the candidates' children with null, controls and halves; write the draws.

    Under the strict rule anchors are compared by children that correlate, selective or not: an
    anchor of another concept cannot have children that are selective for this one.
    """
    counts = (
        Counts(children.cosine, children.cosine)
        if rules.rule == "cosine"
        else Counts(children.strict, children.correlated)
    )
    question = Question(rules.selection, rules.top, rules.gate, rules.resamples, rules.seed)
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
    percentiles = percentile_of_each(found.null, counts.compared, candidates)
    return CalibratedGate(
        found.verdict,
        found.doubts,
        [_known(percentile) for percentile in percentiles],
        _record(found, rules.gate, best(counts.compared, candidates)),
    )


def _record(found: Calibration, gate: GateRules, compared: int) -> dict[str, Any]:
    """Return the numbers of ``gate.json`` that compare; what is not known is None."""
    evidence = found.evidence
    return {
        "best_count": evidence.best_count,
        "selection": asdict(evidence.power),
        "percentile": _known(evidence.percentile),
        "min_percentile": gate.percentile_min,
        "null": _null_record(found.null, compared, gate.null_anchors),
        "control": control_record(found.controls),
        "stability": {
            "share": evidence.stability,
            "min_share": gate.stability_min,
            "resamples": len(found.resamples),
            "outcome": found.outcome,
            "outcomes": dict(sorted(Counter(r.outcome for r in found.resamples).items())),
        },
    }


def _null_record(null: MatchedNull, compared: int, wanted: int) -> dict[str, Any]:
    return {
        "anchors": null.draws,
        "wanted": wanted,
        "eligible": null.eligible,
        "rate_difference": _known(null.rate_difference),
        "compared_count": compared,
        "median_count": float(np.median(null.best)) if null.draws else None,
        "max_count": int(null.best.max()) if null.draws else None,
        "at_least_as_many": int((null.best >= compared).sum()),
    }


def _write_draws(found: Calibration, out: Path) -> None:
    """Write every draw behind the percentile, the control's p and the stability."""
    null, resamples = found.null, found.resamples
    controls = {str(control.kind): control.counts for control in found.controls}
    parts = {
        "matched anchors": null.best,
        **controls,
        "resample": np.array([drawn.best_count for drawn in resamples]),
    }
    before = len(parts["matched anchors"]) + sum(len(counts) for counts in controls.values())
    write_table(
        out / "gate_draws.parquet",
        {
            "source": np.concatenate([np.full(len(part), name) for name, part in parts.items()]),
            "draw": np.concatenate([np.arange(len(part)) for part in parts.values()]),
            "best_count": np.concatenate(list(parts.values())).astype(np.int64),
            "percentile": np.concatenate(
                [
                    np.full(before, np.nan),
                    np.array([drawn.percentile for drawn in resamples]),
                ]
            ),
        },
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
