"""The tables of a steering run: samples, scores, arms with intervals, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from loopscope.numerics.paired import bootstrap_interval
from loopscope.numerics.scores import lexicon_pattern, mentions
from loopscope.numerics.verdict import decide
from loopscope.worker.stages.steering_arms import PRIMARY, SYSTEM_PROMPT
from loopscope.worker.stages.steering_cells import Cell, Row
from loopscope.worker.stages.tables import write_json, write_table


@dataclass(frozen=True)
class Scored:
    """A finished run before its tables. ``rows`` are in opening, cell, sample order.

    ``outcomes`` maps an outcome to its value for each row, NaN where unknown.
    """

    payload: dict[str, Any]
    cells: list[Cell]
    rows: list[Row]
    tokens: dict[Row, list[int]]
    texts: dict[Row, str]
    outcomes: dict[str, dict[Row, float]]
    probe: dict[str, Any]
    divergence: list[float]
    shifts: list[dict[str, Any]]
    arm_cosines: dict[str, float]
    missing: dict[str, str]


def write_results(scored: Scored, out: Path) -> dict[str, Any]:
    """Write the files of the artifact and return the numbers for the status."""
    outcomes = {**_word_outcomes(scored), **scored.outcomes}
    keys = _keys(scored)
    write_table(
        out / "steering_samples.parquet",
        {
            **keys,
            "text": [scored.texts[row] for row in scored.rows],
            "tokens": pyarrow.array(
                [scored.tokens[row] for row in scored.rows], type=pyarrow.list_(pyarrow.int32())
            ),
        },
    )
    columns = {
        name: np.array([values[row] for row in scored.rows]) for name, values in outcomes.items()
    }
    columns["perplexity"] = np.exp(columns.pop("log_perplexity"))
    columns["kl"] = np.array([scored.divergence[row.cell] for row in scored.rows])
    write_table(out / "steering_scores.parquet", {**keys, **columns})
    arms = _arm_table(scored, outcomes)
    write_table(out / "arms.parquet", arms)
    write_table(out / "distribution_shift.parquet", _shift_columns(scored.shifts))
    verdict = {**_verdict(scored, outcomes), "probe": scored.probe}
    write_json(out / "verdict.json", verdict)
    metrics = _metrics(verdict, arms)
    return {**metrics, "method": "clamp"} if scored.payload.get("method") == "clamp" else metrics


def _word_outcomes(scored: Scored) -> dict[str, dict[Row, float]]:
    """Return 1 or 0 for each text by words: the concept's, and its siblings' where given.

    *targetedness* is concept minus sibling: above 0 only for what is not merely of the kind.
    """
    outcomes = {"concept": _mentions(scored, scored.payload["lexicon"])}
    if scored.payload["siblings"]:
        outcomes["sibling"] = _mentions(scored, scored.payload["siblings"])
        outcomes["targetedness"] = {
            row: outcomes["concept"][row] - outcomes["sibling"][row] for row in scored.rows
        }
    return outcomes


def _mentions(scored: Scored, words: list[str]) -> dict[Row, float]:
    pattern = lexicon_pattern(words)
    openings = [opening["text"] for opening in scored.payload["openings"]]
    return {
        row: float(mentions(pattern, scored.texts[row], openings[row.opening]))
        for row in scored.rows
    }


_SHIFT_COLUMNS = (
    "prompt_id", "arm", "strength", "token", "text", "probability_before", "rank_before",
    "probability_after", "rank_after", "new_arrival",
)  # fmt: skip


def _shift_columns(shifts: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: [shift[name] for shift in shifts] for name in _SHIFT_COLUMNS}


def _keys(scored: Scored) -> dict[str, Any]:
    ids = [opening["id"] for opening in scored.payload["openings"]]
    return {
        "prompt_id": [ids[row.opening] for row in scored.rows],
        "arm": [scored.cells[row.cell].arm for row in scored.rows],
        "strength": np.array([scored.cells[row.cell].strength for row in scored.rows]),
        "sample": np.array([row.sample for row in scored.rows], dtype=np.int32),
    }


def _by_opening(
    scored: Scored, values: dict[Row, float], cells: Iterable[int]
) -> NDArray[np.float64]:
    """Return each opening's mean value over the given cells and all samples; NaN spreads."""
    wanted = set(cells)
    found: list[list[float]] = [[] for _ in scored.payload["openings"]]
    for row in scored.rows:
        if row.cell in wanted:
            found[row.opening].append(values[row])
    return np.array([np.mean(of_opening) for of_opening in found])


def _arm_table(scored: Scored, outcomes: dict[str, dict[Row, float]]) -> dict[str, Any]:
    """Return one row per arm and strength; intervals are 95 % bootstrap over openings."""
    seed = scored.payload["sampling"]["seed"]
    records = []
    for index, cell in enumerate(scored.cells):
        rows = [row for row in scored.rows if row.cell == index]
        per_opening = _by_opening(scored, outcomes["concept"], [index])
        low, high = bootstrap_interval(per_opening, seed)
        perplexity = np.exp([outcomes["log_perplexity"][row] for row in rows])
        records.append(
            {
                "arm": cell.arm,
                "strength": cell.strength,
                "n": len(rows),
                "concept_rate": float(per_opening.mean()),
                "concept_low": low,
                "concept_high": high,
                "median_perplexity": _over_known(np.median, perplexity),
                "kl": scored.divergence[index],
                "norm": cell.norm,
                **{
                    name: _over_known(np.mean, np.array([values[row] for row in rows]))
                    for name, values in outcomes.items()
                    if name not in ("concept", "log_perplexity")
                },
            }
        )
    return {name: [record[name] for record in records] for name in records[0]}


def _over_known(summary: Callable[..., Any], values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(summary(known)) if known.size else float("nan")


def _verdict(scored: Scored, outcomes: dict[str, dict[Row, float]]) -> dict[str, Any]:
    """Return the verdict; outcomes per opening are means over an arm's strengths and samples."""
    concept = _by_arm(scored, outcomes["concept"])
    return decide(
        concept,
        scored.arm_cosines,
        min_difference=scored.payload["minDifference"],
        max_arm_cosine=scored.payload["maxArmCosine"],
        seed=scored.payload["sampling"]["seed"],
        missing=scored.missing,
        secondary={
            name: _by_arm(scored, values)
            for name, values in outcomes.items()
            if name not in ("concept", "sibling")
        },
    )


def _by_arm(scored: Scored, values: dict[Row, float]) -> dict[str, NDArray[np.float64]]:
    """Return each arm's value per opening; all random directions are one arm.

    Only strengths that coarse, fine and multi all reached count, and only arms that reached
    those: means over different budgets would compare nothing. ``none`` is no rival of multi.
    """
    groups: dict[str, dict[int, float]] = {}
    for index, cell in enumerate(scored.cells):
        if cell.arm != "none":
            groups.setdefault(cell.arm.split("-")[0], {})[index] = cell.strength
    reached = [set(groups[name].values()) for name in PRIMARY if name in groups]
    common = set.intersection(*reached) if reached else set()
    found = {}
    for name, strengths in groups.items():
        if name == SYSTEM_PROMPT:
            found[name] = _by_opening(scored, values, strengths)
        elif common and common <= set(strengths.values()):
            cells = [index for index, strength in strengths.items() if strength in common]
            found[name] = _by_opening(scored, values, cells)
    return found


def _metrics(verdict: dict[str, Any], arms: dict[str, Any]) -> dict[str, Any]:
    names = ("verdict", "contrast", "estimate", "low", "high", "n", "n_needed")
    metrics = {name: verdict[name] for name in names}
    steered = [i for i, arm in enumerate(arms["arm"]) if arm in PRIMARY]
    if steered:
        best = max(steered, key=lambda i: (arms["concept_rate"][i], -arms["kl"][i]))
        metrics |= {
            "best_arm": arms["arm"][best],
            "best_strength": arms["strength"][best],
            "best_concept_rate": arms["concept_rate"][best],
            "best_median_perplexity": _known(arms["median_perplexity"][best]),
        }
    if "none" in arms["arm"]:
        none = arms["arm"].index("none")
        metrics["unsteered_concept_rate"] = arms["concept_rate"][none]
        metrics["unsteered_median_perplexity"] = _known(arms["median_perplexity"][none])
    return metrics


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
