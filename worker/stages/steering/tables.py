"""The tables of a steering run: samples, scores, arms with intervals, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow
from numpy.typing import NDArray

from loopscope.numerics.statistics.paired import rate_interval
from loopscope.numerics.verdict.cells import PRIMARY_ARMS, ScoredCells
from loopscope.numerics.verdict.decision import VerdictRules
from loopscope.numerics.verdict.evidence import evidence_of
from loopscope.numerics.verdict.fairness import budget_errors, prompt_fairness
from loopscope.numerics.verdict.looks import looks
from loopscope.specs.artifacts.steering import (
    ARMS,
    DISTRIBUTION_SHIFT,
    NEUTRAL_TEXT,
    SAMPLES,
    SCORES,
    VERDICT,
)
from loopscope.specs.artifacts.verdict import Stopping, Verdict
from loopscope.specs.payloads.steering import Interval, SteeringResults
from loopscope.specs.stopping import blocks_of
from loopscope.worker.stages.steering.cells import GeneratedText, Row
from loopscope.worker.stages.steering.fairness import (
    budget_record,
    largest_budget_sd,
    system_prompt_record,
)
from loopscope.worker.stages.steering.scored import Scored
from loopscope.worker.stages.steering.verdict_record import decision_record, stopping_record
from loopscope.worker.stages.tables import Columns, write_document, write_table

Outcomes = dict[str, dict[Row, float]]


def write_results(scored: Scored, out: Path) -> SteeringResults:
    """Write the files of the artifact and return the numbers for the status."""
    outcomes, keys = scored.outcomes, _keys(scored)
    write_table(
        out,
        SAMPLES,
        {
            **keys,
            "text": [scored.texts[row] for row in scored.rows],
            "tokens": pyarrow.array(
                [scored.generated[row]["tokens"] for row in scored.rows],
                type=pyarrow.list_(pyarrow.int32()),
            ),
        },
    )
    columns = {
        name: np.array([values[row] for row in scored.rows]) for name, values in outcomes.items()
    }
    columns["perplexity"] = np.exp(columns.pop("log_perplexity"))
    columns["kl"] = np.array([scored.divergence[row.cell] for row in scored.rows])
    write_table(out, SCORES, {**keys, **columns})
    write_table(out, NEUTRAL_TEXT, _neutral_columns(scored))
    run = scored.by_cell()
    arms = _arm_rows(scored, run)
    write_table(out, ARMS, _arm_columns(arms, scored, outcomes))
    write_table(out, DISTRIBUTION_SHIFT, _shift_columns(scored.shifts))
    verdict = _verdict(scored, run)
    write_document(out, VERDICT, verdict)
    metrics = _metrics(verdict, arms)
    if scored.payload.get("method") == "clamp":
        metrics["method"] = "clamp"
    return metrics


PRIMARY_CONTRASTS = ("multi-coarse", "multi-fine")


def _shift_columns(shifts: Sequence[Mapping[str, object]]) -> Columns:
    names = [column.name for column in DISTRIBUTION_SHIFT.columns]
    return {name: [shift[name] for shift in shifts] for name in names}


def _neutral_columns(scored: Scored) -> Columns:
    """Return one row for each cell and neutral text, in the order of the spec."""
    places = np.argsort(scored.neutral_order)
    texts = scored.payload["neutralText"]
    budget = np.full(scored.neutral.kl.shape, np.nan) if scored.budget is None else scored.budget
    return {
        "arm": [cell.arm for cell in scored.cells for _ in places],
        "strength": np.array([cell.strength for cell in scored.cells for _ in places]),
        "number": np.tile(np.arange(len(texts), dtype=np.int32), len(scored.cells)),
        "kl": scored.neutral.kl[:, places].ravel(),
        "budget": budget[:, places].ravel(),
        "text": [text for _ in scored.cells for text in texts],
    }


def _keys(scored: Scored) -> Columns:
    ids = [opening["id"] for opening in scored.payload["openings"]]
    return {
        "prompt_id": [ids[row.opening] for row in scored.rows],
        "arm": [scored.cells[row.cell].arm for row in scored.rows],
        "strength": np.array([scored.cells[row.cell].strength for row in scored.rows]),
        "sample": np.array([row.sample for row in scored.rows], dtype=np.int32),
    }


class ArmRow(TypedDict):
    """The columns that every table of arms has of one arm at one strength."""

    arm: str
    strength: float
    n: int
    concept_rate: float
    concept_low: float
    concept_high: float
    median_perplexity: float
    kl: float
    norm: float


def _arm_rows(scored: Scored, run: ScoredCells) -> list[ArmRow]:
    """Return one row per arm and strength; rates carry Wilson's 95 % interval."""
    found: list[ArmRow] = []
    for index, cell in enumerate(scored.cells):
        concept = run.outcomes["concept"][index]
        low, high = rate_interval(concept, group=run.group)
        perplexity = np.exp(run.outcomes["log_perplexity"][index].ravel())
        found.append(
            {
                "arm": cell.arm,
                "strength": cell.strength,
                "n": concept.size,
                "concept_rate": float(concept.mean()),
                "concept_low": low,
                "concept_high": high,
                "median_perplexity": _over_known(np.median, perplexity),
                "kl": scored.divergence[index],
                "norm": cell.norm,
            }
        )
    return found


def _arm_columns(
    arms: Sequence[Mapping[str, object]], scored: Scored, outcomes: Outcomes
) -> Columns:
    """Return the columns of the arms' rows, and their means of all other outcomes."""
    cells = range(len(scored.cells))
    return {
        **{name: [arm[name] for arm in arms] for name in arms[0]},
        **{
            name: [_mean_of_cell(scored, values, index) for index in cells]
            for name, values in outcomes.items()
            if name not in ("concept", "log_perplexity")
        },
        **{
            f"fixed_text_change_{side}": change.tolist()
            for side, change in scored.neutral.collateral.items()
        },
        **_token_counts(scored),
    }


def _token_counts(scored: Scored) -> Columns:
    """Return how many tokens each cell generated and steered, over all of its texts."""
    by_cell: list[list[GeneratedText]] = [[] for _ in scored.cells]
    for row in scored.rows:
        by_cell[row.cell].append(scored.generated[row])
    return {
        "generated_tokens": [sum(len(one["tokens"]) for one in found) for found in by_cell],
        "steered_tokens": [sum(one["after_steered"] for one in found) for found in by_cell],
        "steered_opening_tokens": [
            sum(one["opening_steered"] for one in found) for found in by_cell
        ],
    }


def _mean_of_cell(scored: Scored, values: dict[Row, float], cell: int) -> float:
    return _over_known(np.mean, np.array([values[row] for row in scored.rows if row.cell == cell]))


def _over_known(
    summary: Callable[[NDArray[np.float64]], np.floating], values: NDArray[np.float64]
) -> float:
    known = values[~np.isnan(values)]
    return float(summary(known)) if known.size else float("nan")


def _verdict(scored: Scored, run: ScoredCells) -> Verdict:
    """Return the verdict on the concept score; the other outcomes stand beside it."""
    errors = budget_errors(run)
    evidence = evidence_of(run, scored.arm_cosines, scored.missing, errors)
    rules = VerdictRules(scored.payload["minDifference"], scored.payload["maxArmCosine"])
    return {
        **decision_record(evidence, rules),
        "anchor": scored.anchor,
        "budget": budget_record(scored, errors),
        "system_prompt": system_prompt_record(prompt_fairness(run)),
        "probe": scored.probe,
        **_stopping(scored, run, rules),
    }


def _stopping(scored: Scored, run: ScoredCells, rules: VerdictRules) -> Stopping:
    """Return what each look said; nothing of a run that could not stop early."""
    if (rule := scored.payload.get("stopEarly")) is None:
        return {}
    blocks = blocks_of(scored.payload["openings"], rule, scored.payload["sampling"]["seed"])
    seen = looks(run, blocks, scored.arm_cosines, scored.missing, rules)
    return {"stopping": stopping_record(scored.declared, seen)}


def _metrics(verdict: Verdict, arms: Sequence[ArmRow]) -> SteeringResults:
    metrics: SteeringResults = {
        "verdict": verdict["verdict"],
        "reason": verdict["reason"],
        "contrast": verdict["contrast"],
        "estimate": verdict["estimate"],
        "low": verdict["low"],
        "high": verdict["high"],
        "n": verdict["n"],
        "n_needed": verdict["n_needed"],
        "samples_needed": verdict["samples_needed"],
    }
    if verdict["p"]:  # what a verdict among several is corrected and pooled by
        metrics["p"] = verdict["p"]
        metrics["primary"] = _primary(verdict)
    if "stopping" in verdict:
        metrics["n_declared"] = verdict["stopping"]["declared"]
        metrics["looks"] = len(verdict["stopping"]["looks"])
    if verdict["budget"] is not None:
        metrics["budget_texts"] = verdict["budget"]["texts"]
        metrics["budget_sd"] = largest_budget_sd(verdict["budget"])
    steered = [arm for arm in arms if arm["arm"] in PRIMARY_ARMS]
    if steered:
        best = max(steered, key=lambda arm: (arm["concept_rate"], -arm["kl"]))
        metrics["best_arm"] = best["arm"]
        metrics["best_strength"] = best["strength"]
        metrics["best_concept_rate"] = best["concept_rate"]
        metrics["best_median_perplexity"] = _known(best["median_perplexity"])
    unsteered = next((arm for arm in arms if arm["arm"] == "none"), None)
    if unsteered is not None:
        metrics["unsteered_concept_rate"] = unsteered["concept_rate"]
        metrics["unsteered_median_perplexity"] = _known(unsteered["median_perplexity"])
    return metrics


def _primary(verdict: Verdict) -> dict[str, Interval]:
    return {
        c["contrast"]: {"estimate": c["estimate"], "low": c["low"], "high": c["high"]}
        for c in verdict["contrasts"]
        if c["contrast"] in PRIMARY_CONTRASTS
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
