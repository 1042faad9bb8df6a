"""The verdict once more, from the tables of an evidence bundle: NumPy, SciPy and pandas only.

Imports nothing of Loopscope. Laws of counts are convolved one value after another on the lattice
that the scores have, where Loopscope multiplies transforms on a lattice that it finds; bounds are
found by bisection, bounds of a share by the beta distribution. The standard deviation that the
error of the budgets gives a contrast comes from ``independent_budget.py``; it is taken from
``verdict.json`` only where a bundle of before has no ``neutral_text.parquet``.

Run on bundles with ``python -m tests.acceptance.independent_verdict BUNDLE…``: it prints what was
compared and how well it agrees, and fails where it does not.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas

from tests.acceptance.independent_budget import UNSTEERED, check_budgets
from tests.acceptance.independent_laws import Contrast, contrast, holm, rate_bounds

PRIMARY = (("multi", "coarse"), ("multi", "fine"))
EXACT = 1e-6
ROUNDED = 2e-3
"""Where Loopscope rounds to a lattice (groups, nats): bounds and p agree within this."""


@dataclass
class Agreement:
    """How many numbers of each kind were compared, and the largest difference."""

    rows: dict[str, tuple[int, float]] = field(default_factory=dict)

    def near(self, kind: str, found, expected, tolerance: float) -> None:
        """Keep the difference; raise AssertionError above the tolerance."""
        if found is None or expected is None:
            assert found is None and (expected is None or np.isnan(expected)), (kind, expected)
            return
        difference = abs(float(found) - float(expected))
        count, worst = self.rows.get(kind, (0, 0.0))
        self.rows[kind] = (count + 1, max(worst, difference))
        assert difference <= tolerance, (kind, found, expected)

    def equal(self, kind: str, found, expected) -> None:
        """Keep that two words are the same; raise AssertionError where they are not."""
        assert found == expected, (kind, found, expected)
        count, worst = self.rows.get(kind, (0, 0.0))
        self.rows[kind] = (count + 1, worst)

    def table(self) -> str:
        """Return the rows as a Markdown table."""
        lines = ["| quantity | numbers | largest difference |", "|---|---|---|"]
        lines += [f"| {kind} | {n:,} | {worst:.1e} |" for kind, (n, worst) in self.rows.items()]
        return "\n".join(lines)


@dataclass
class Tables:
    """The scores of a bundle as arrays: of one arm, [openings, samples], a mean over strengths."""

    scores: pandas.DataFrame

    def __post_init__(self) -> None:
        self.openings = sorted(self.scores["prompt_id"].unique())
        by_arm = self.scores.groupby("arm")["strength"].unique()
        self.strengths = sorted(
            set.intersection(*(set(by_arm[a]) for a in ("coarse", "fine", "multi") if a in by_arm))
        )
        self.samples = self.scores["sample"].nunique()
        arms = self.scores["arm"]
        self.random = sorted({a for a in arms if a.startswith("random-")})

    def arm(self, name: str, outcome: str) -> np.ndarray | None:
        """Return an arm's outcome; ``random`` is the mean of all draws."""
        draws = self.random if name == "random" else [name]
        strengths = [0.0] if name in UNSTEERED else self.strengths
        found = []
        for strength in strengths:
            rows = self.scores[
                self.scores["arm"].isin(draws) & (self.scores["strength"] == strength)
            ]
            if rows.empty:
                return None
            table = rows.pivot_table(
                index="prompt_id", columns="sample", values=outcome, dropna=False,
                aggfunc=lambda column: column.mean(skipna=False),
            )  # fmt: skip
            found.append(table.reindex(self.openings).to_numpy())
        return np.mean(found, axis=0)


def check(bundle: Path, agreement: Agreement, group: np.ndarray | None = None) -> None:
    """Compare verdict.json and arms.parquet with what the scores give. Raises AssertionError.

    ``group`` numbers the openings that belong together, in the order of their names.
    """
    told = json.loads((bundle / "verdict.json").read_text())
    tables = Tables(pandas.read_parquet(bundle / "steering_scores.parquet"))
    group = np.arange(len(tables.openings)) if group is None else group
    told_by = {entry["contrast"]: entry for entry in told["contrasts"]}
    blur = {name: entry["shared_sd"] for name, entry in told_by.items()}
    if (bundle / "neutral_text.parquet").exists():
        blur = dict.fromkeys(told_by, 0.0) | check_budgets(bundle, agreement)
        blur["multi-random"] = math.hypot(blur.get("multi-random", 0.0), _between_draws(tables))
        for name, entry in told_by.items():
            agreement.near("error that openings share", entry["shared_sd"], blur[name], 1e-9)
    unit = 1 / (tables.samples * len(tables.strengths))
    again = {}
    for name, entry in told_by.items():
        first, second = _arms_of(name, told_by)
        step = unit / (len(tables.random) if second == "random" else 1)
        if second in UNSTEERED:
            step = unit
        again[name] = contrast(
            tables.arm(first, "concept").mean(axis=1),
            tables.arm(second, "concept").mean(axis=1),
            group, unit=unit, blur=blur[name], step=step, margin=told["min_difference"],
        )  # fmt: skip
        tolerance = EXACT if entry["groups"] == entry["n"] else ROUNDED
        decides = (first, second) in PRIMARY
        _compare(agreement, "contrasts", entry, again[name], tolerance, margins=decides)
    intact = _intact(tables, group, blur)
    for entry in told["intact"]:
        _compare(
            agreement, "contrasts among intact texts", entry, intact[entry["contrast"]], ROUNDED
        )
    _secondary(tables, group, told, agreement)
    word, p = _word(told, again, intact, tables)
    agreement.equal("verdict", told["verdict"], word)
    if told["p"]:
        for name, value in p.items():
            agreement.near("p of each word", told["p"][name], value, ROUNDED)
    _arms(bundle, tables, agreement, group)


def _between_draws(tables: Tables) -> float:
    """Return the standard error that the choice of random directions gives their mean."""
    means = []
    for draw in tables.random:
        scores = tables.arm(draw, "concept")
        if scores is not None:
            means.append(scores.mean())
    return float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else 0.0


def _arms_of(name: str, told: dict) -> tuple[str, str]:
    first, second = name.split("-", 1)
    assert name in told
    return first, second


def _compare(agreement, kind, entry, found: Contrast, tolerance, *, margins=False) -> None:
    agreement.near(f"{kind}: estimate", entry["estimate"], found.estimate, 1e-9)
    for name, value in zip(("low", "high", "low_90", "high_90"), found.ends, strict=True):
        agreement.near(f"{kind}: intervals", entry[name], value, tolerance)
    for name, value in zip(("p_greater", "p_less"), found.flips, strict=True):
        agreement.near(f"{kind}: sign-flip p", entry[name], value, tolerance)
    for name, value in zip(("p_above_zero", "p_below_zero"), found.zero, strict=True):
        agreement.near(f"{kind}: p of the interval", entry[name], value, tolerance)
    if margins:
        for name, value in zip(("p_above_margin", "p_below_margin"), found.margin, strict=True):
            agreement.near(f"{kind}: p of the interval", entry[name], value, tolerance)


def _intact(tables: Tables, group, blur: dict[str, float]) -> dict[str, Contrast]:
    rates = {}
    for arm in ("coarse", "fine", "multi"):
        share = tables.arm(arm, "intact")
        if share is None:
            return {}
        scores = tables.scores.assign(both=tables.scores["concept"] * tables.scores["intact"])
        hits = Tables(scores).arm(arm, "both").mean(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            rates[arm] = np.where(share.mean(axis=1) > 0, hits / share.mean(axis=1), np.nan)
    texts = tables.samples * len(tables.strengths)
    step = 1 / math.lcm(*range(1, texts + 1))  # hits of as many texts as are intact
    return {
        f"{a}-{b}": contrast(rates[a], rates[b], group, step=step, blur=blur[f"{a}-{b}"])
        for a, b in PRIMARY
        if (~np.isnan(rates[a] - rates[b])).any()
    }


def _secondary(tables: Tables, group, told, agreement: Agreement) -> None:
    found = []
    for entry in told["secondary"]:
        outcome, (a, b) = entry["outcome"], entry["contrast"].split("-", 1)
        scores = tables.scores
        if outcome == "log_perplexity":
            scores = scores.assign(log_perplexity=np.log(scores["perplexity"]))
        both = [Tables(scores).arm(arm, outcome).mean(axis=1) for arm in (a, b)]
        widest = float(np.nanmax(np.abs(both[0] - both[1]), initial=0.0))
        step = max(widest, 1e-9) / 500
        found.append(contrast(*both, group, step=step, span=None))
        agreement.near("secondary outcomes: estimate", entry["estimate"], found[-1].estimate, 1e-6)
        for name, value in zip(("low", "high"), found[-1].ends[:2], strict=True):
            agreement.near(
                "secondary outcomes: intervals, share of the largest difference",
                None if entry[name] is None else entry[name] / max(widest, 1e-9),
                value / max(widest, 1e-9), 5e-3,
            )  # fmt: skip
    p = np.array([min(1.0, 2 * min(each.flips)) for each in found])
    for entry, value in zip(told["secondary"], holm(p), strict=True):
        agreement.near("secondary outcomes: p (Holm)", entry["p_holm"], value, 2e-2)


def _word(told, again, intact, tables: Tables) -> tuple[str, dict[str, float]]:
    """Return the verdict by the rules as docs/science.md states them, and the p of each word."""
    delta = told["min_difference"]
    cosines = told["arm_cosines"]
    rates = {}
    for arm in ("coarse", "fine", "multi", "none"):
        scores = tables.arm(arm, "concept") if arm in set(tables.scores["arm"]) else None
        if scores is None:
            return "NotTestable", {}
        rates[arm] = float(scores.mean())
    for pair in ("coarse~multi", "fine~multi"):
        if cosines.get(pair) is None or cosines[pair] > told["max_arm_cosine"]:
            return "NotTestable", {}
    better = "coarse" if rates["coarse"] >= rates["fine"] else "fine"
    if again[f"{better}-none"].ends[0] <= 1e-12 or rates[better] > 1 - delta:
        return "NotTestable", {}
    primary = [again[f"{a}-{b}"] for a, b in PRIMARY]
    gains = [c.gain for c in primary]
    among = [c.gain for c in intact.values()] + [1.0] * (2 - len(intact))
    p = {
        "supported": max(gains + among),
        "refuted": min(1.0, 2 * min(c.loss for c in primary)),
        "no_difference": max(
            *(c.margin[0] for c in primary), min(1.0, 2 * min(c.margin[1] for c in primary))
        ),
    }
    if max(gains) <= 0.025:
        return ("Supported" if max(among) <= 0.025 else "Inconclusive"), p
    if p["refuted"] <= 0.025:
        return "Refuted", p
    return ("NoPracticalDifference" if p["no_difference"] <= 0.05 else "Inconclusive"), p


def _arms(bundle: Path, tables: Tables, agreement: Agreement, group: np.ndarray) -> None:
    arms = pandas.read_parquet(bundle / "arms.parquet")
    for row in arms.to_dict("records"):
        rows = tables.scores[
            (tables.scores["arm"] == row["arm"]) & (tables.scores["strength"] == row["strength"])
        ]
        scores = rows.pivot(index="prompt_id", columns="sample", values="concept").to_numpy()
        low, high = rate_bounds(scores, group)
        agreement.near("rates of the arms", row["concept_rate"], scores.mean(), 1e-9)
        agreement.near("intervals of the arms' rates", row["concept_low"], low, EXACT)
        agreement.near("intervals of the arms' rates", row["concept_high"], high, EXACT)


def main() -> None:
    """Check bundles and print what agreed."""
    agreement = Agreement()
    for bundle in map(Path, sys.argv[1:]):
        check(bundle, agreement)
    sys.stdout.write(f"{agreement.table()}\n")


if __name__ == "__main__":
    main()
