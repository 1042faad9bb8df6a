"""Equal budgets and their error once more, from the tables of a bundle: NumPy and pandas only.

Imports nothing of Loopscope. The KL of each neutral text is taken from ``neutral_text.parquet``
(its mean is computed again from the model elsewhere, see ``independent_steering.py``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas

UNSTEERED = ("none", "systemPrompt", "placeboPrompt")
WITHIN = 0.021
MEASURED_SD, MEASURED_WORTH = 0.18, 4
RAREST = 0.02


@dataclass
class Arm:
    """An arm at some strengths: the effect on each text and the mean score of each opening."""

    effects: list[np.ndarray]
    scores: list[np.ndarray]


@dataclass
class Run:
    """The tables of one bundle."""

    neutral: pandas.DataFrame
    scores: pandas.DataFrame

    @staticmethod
    def of(bundle: Path) -> Run:
        return Run(
            pandas.read_parquet(bundle / "neutral_text.parquet"),
            pandas.read_parquet(bundle / "steering_scores.parquet"),
        )

    def draws(self, arm: str) -> list[str]:
        names = self.scores["arm"].unique()
        return [n for n in names if n == arm or (arm == "random" and n.startswith("random-"))]

    def strengths(self, arm: str) -> set[float]:
        rows = self.scores[self.scores["arm"].isin(self.draws(arm))]
        return set(rows["strength"])

    def common(self) -> list[float]:
        """The strengths that coarse, fine and multi all reached, as far as they are there."""
        found = [self.strengths(arm) for arm in ("coarse", "fine", "multi")]
        return sorted(set.intersection(*(each for each in found if each)))

    def arm(self, name: str, strengths: list[float], effect: str) -> Arm:
        """Return an arm; draws are averaged within a strength."""
        found = Arm([], [])
        for strength in strengths:
            parts = []
            for table in (self.neutral, self.scores):
                chosen = table["arm"].isin(self.draws(name)) & (table["strength"] == strength)
                parts.append(table[chosen])
            texts, scores = parts
            found.effects.append(texts.groupby("number")[effect].mean().sort_index().to_numpy())
            found.scores.append(scores.groupby("prompt_id")["concept"].mean().to_numpy())
        return found


def spread_of_ratio(first: np.ndarray, second: np.ndarray) -> float:
    """Standard deviation of the logarithm of the ratio of two mean effects, over texts."""
    if min(first.mean(), second.mean()) <= 0:
        return float("nan")
    n = len(first)
    squares = sum(
        (k / first.mean() - m / second.mean()) ** 2 for k, m in zip(first, second, strict=True)
    )
    pooled = (MEASURED_WORTH * MEASURED_SD**2 + squares) / (MEASURED_WORTH + n - 1)
    return float(np.sqrt(pooled / n))


def steepness(arm: Arm, unsteered: np.ndarray | None) -> list[float]:
    """Change of the score with the logarithm of the effect, root mean square, at each strength."""
    openings = len(arm.scores[0])
    if len(arm.scores) == 1:
        before = np.zeros(openings) if unsteered is None else unsteered
        rise = arm.scores[0] - before
        rate, least = (min(max(x.mean(), RAREST), 1 - RAREST) for x in (arm.scores[0], before))
        odds = np.log(rate / (1 - rate) / (least / (1 - least)))
        slopes = [(max(abs(rise.mean()), rate * (1 - rate) / 2 * abs(odds)), rise)]
    else:
        x = np.log([effect.mean() for effect in arm.effects])
        slopes = [(each.mean(), each) for each in _derivatives(x, np.array(arm.scores))]
    errors = [each.std(ddof=1) / np.sqrt(openings) if openings > 1 else 0.0 for _, each in slopes]
    return [float(np.hypot(mean, error)) for (mean, _), error in zip(slopes, errors, strict=True)]


def _derivatives(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Slopes of the chord at the ends, of the parabola through both neighbours between them."""
    chords = [(b - a) / (q - p) for a, b, p, q in zip(y, y[1:], x, x[1:], strict=False)]
    inner = [
        (left * (x[i + 2] - x[i + 1]) + right * (x[i + 1] - x[i])) / (x[i + 2] - x[i])
        for i, (left, right) in enumerate(pairwise(chords))
    ]
    return [chords[0], *inner, chords[-1]]


def errors(run: Run) -> dict[str, tuple[float, float, float]]:
    """Return for each contrast of multi its sd of the log ratio, its slope, and their product."""
    strengths, found = run.common(), {}
    unsteered = run.arm("none", [0.0], "kl").scores[0] if run.draws("none") else None
    arms = {"random" if name.startswith("random-") else name for name in run.scores["arm"]}
    for name in arms - {*UNSTEERED, "multi"}:
        if not strengths or not set(strengths) <= run.strengths(name):
            continue
        pair = [run.arm(arm, strengths, "budget") for arm in ("multi", name)]
        spread = [spread_of_ratio(*both) for both in zip(*(a.effects for a in pair), strict=True)]
        slope = np.max([steepness(arm, unsteered) for arm in pair], axis=0)
        product = float(np.mean(spread * slope))
        found[f"multi-{name}"] = (float(np.mean(spread)), float(np.mean(slope)), product)
    return found


def check_budgets(bundle: Path, agreement) -> dict[str, float]:
    """Compare the budgets of a bundle with its neutral texts. Raises AssertionError.

    Returns the standard deviation that each contrast owes to them; empty where strengths are norms.
    """
    told = json.loads((bundle / "verdict.json").read_text())
    run, arms = Run.of(bundle), pandas.read_parquet(bundle / "arms.parquet")
    cells = run.neutral.groupby(["arm", "strength"])
    texts = run.neutral["number"].nunique()
    assert (cells["number"].nunique() == texts).all()
    means = cells["kl"].mean()
    for row in arms.itertuples():
        mean = means[row.arm, row.strength]
        agreement.near("budgets: KL of arms", row.kl, mean, 1e-9)
        scores = run.scores[(run.scores["arm"] == row.arm)
                            & (run.scores["strength"] == row.strength)]  # fmt: skip
        agreement.near("budgets: KL of arms", scores["kl"].min(), mean, 1e-9)
        agreement.near("budgets: KL of arms", scores["kl"].max(), mean, 1e-9)
    if told["budget"] is None:
        assert run.neutral["budget"].isna().all()
        return {}
    agreement.equal("budgets: texts", told["budget"]["texts"], texts)
    for (arm, strength), budget in cells["budget"].mean().items():
        if arm in UNSTEERED:
            assert np.isnan(budget), arm
        else:
            agreement.near("budgets: share off the strength", budget / strength, 1, WITHIN)
    again = errors(run)
    listed = {entry["contrast"]: entry for entry in told["budget"]["errors"]}
    assert set(listed) == set(again)
    for name, values in again.items():
        for field, value in zip(("log_ratio_sd", "slope", "shared_sd"), values, strict=True):
            kind = f"budgets: {field.replace('_', ' ')}"
            agreement.near(kind, listed[name][field], value, 1e-9)
    _beside_the_prompt(told, run, means, agreement)
    return {name: product for name, (_, _, product) in again.items()}


def _beside_the_prompt(told, run: Run, means, agreement) -> None:
    """Read the arms off at the system prompt's KL, linear in its logarithm between strengths."""
    record = told["system_prompt"]
    if record is None:
        return
    kl = means["systemPrompt", 0.0]
    agreement.near("budgets: KL of arms", record["kl"], kl, 1e-9)
    for entry in record["arms"]:
        strengths = sorted(run.strengths(entry["arm"]))
        arm = run.arm(entry["arm"], strengths, "kl")
        at = np.array([effect.mean() for effect in arm.effects])
        if len(at) < 2 or not at.min() <= kl <= at.max():
            agreement.equal("arms at the prompt's KL", entry["rate"], None)
            assert entry["reason"]
            continue
        rate = np.interp(np.log(kl), np.log(at), [score.mean() for score in arm.scores])
        agreement.near("arms at the prompt's KL", entry["rate"], rate, 1e-9)
