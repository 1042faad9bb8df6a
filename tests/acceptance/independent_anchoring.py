"""Drift and ablation computed again from the tables of a bundle, sharing no code with Loopscope.

NumPy, SciPy and pandas only. Half-lives come from a root finder on the interpolated curve, laws are
convolved value by value (``independent_laws.py``). ``python -m
tests.acceptance.independent_anchoring BUNDLE…`` prints what agreed, and fails where it does not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas
import scipy.optimize

from tests.acceptance.independent_laws import contrast, holm
from tests.acceptance.independent_verdict import Agreement

ROUNDED = 5e-3
"""Outcomes in nats are rounded to a lattice by both sides, each its own: a share of the range."""
STEPS = 4_000
"""Lattice points of the largest difference."""


def compared(folder: Path, agreement: Agreement) -> Agreement:
    """Compare what a bundle holds of drift and ablation; raise AssertionError where it differs."""
    if (folder / "drift").is_dir():
        check_drift(folder / "drift", agreement)
    if (folder / "ablation").is_dir():
        check_ablation(folder / "ablation", agreement)
    return agreement


def check_drift(folder: Path, agreement: Agreement) -> None:
    """Curves, half-lives, fades and the grid from the points and the samples."""
    told = json.loads((folder / "drift.json").read_text())
    points = pandas.read_parquet(folder / "drift_points.parquet")
    points["gain"] = points["concept"] - points["concept_unanchored"]
    keys = ["anchor", "distance", "again"]
    for row in pandas.read_parquet(folder / "drift_curve.parquet").itertuples():
        own = points[(points[keys] == [row.anchor, row.distance, row.again]).all(axis=1)]
        for name, value, ends, span in (
            ("kl", row.kl, (row.kl_low, row.kl_high), None),
            ("gain", row.concept, (row.concept_low, row.concept_high), 1.0),
        ):
            values = own[name].to_numpy()
            again = of(values, np.zeros(len(values)), own["filler"].to_numpy(), span)
            agreement.near(f"drift: curve, {name}", value, again.estimate, 1e-12)
            for found, expected in zip(ends, again.ends[:2], strict=True):
                near = abs(found - expected) / max(np.ptp(values), 1e-12)
                agreement.near(f"drift: bands, {name}, share of the range", near, 0.0, ROUNDED)
    p = []
    for one in told["outcomes"]:
        curve = matrix(points, one)
        span = 1.0 if one["outcome"] == "concept" else None
        fade = of(curve.iloc[:, 0].to_numpy(), curve.iloc[:, -1].to_numpy(), groups(points), span)
        agreement.near("drift: near minus far", one["difference"], fade.estimate, 1e-12)
        agreement.near("drift: p of a fade", one["p"], fade.gain, ROUNDED)
        p.append(one["p"])
        if one["half_life"] is not None:
            agreement.near("drift: half-lives, share", one["half_life"] / half(curve), 1.0, 1e-6)
    for one, adjusted in zip(told["outcomes"], holm(np.array(p)), strict=True):
        agreement.near("drift: p (Holm)", one["p_holm"], adjusted, 1e-12)
    check_grid(folder, agreement)


def of(first: np.ndarray, second: np.ndarray, group: np.ndarray, span: float | None):
    """A contrast of this script's own on a fine lattice of its own."""
    reach = np.abs(first - second).max() or 1.0
    return contrast(first, second, group, step=reach / STEPS, span=span)


def groups(points: pandas.DataFrame) -> np.ndarray:
    """The filler of each opening, in the order of the openings."""
    return points.groupby("prompt_id")["filler"].first().to_numpy()


def matrix(points: pandas.DataFrame, outcome: dict) -> pandas.DataFrame:
    """An anchor's effects, a row an opening and a column a distance."""
    own = points[(points["anchor"] == outcome["anchor"]) & ~points["again"]]
    values = "kl" if outcome["outcome"] == "kl" else "gain"
    return own.pivot_table(index="prompt_id", columns="distance", values=values)


def half(curve: pandas.DataFrame) -> float:
    """Where the mean curve first comes down to half of its first value, by a root finder."""
    places, means = np.log1p(curve.columns.to_numpy(float)), curve.mean().to_numpy()

    def left(place: float) -> float:
        return float(np.interp(place, places, means) - means[0] / 2)

    first = next(n for n in range(1, len(places)) if left(places[n]) <= 0)
    return float(np.expm1(scipy.optimize.brentq(left, places[first - 1], places[first])))


def check_grid(folder: Path, agreement: Agreement) -> None:
    """The means of the grid from the samples."""
    samples = pandas.read_parquet(folder / "wander_samples.parquet")
    mass = samples.set_index(["anchor", "temperature", "prompt_id"])["concept_mass"]
    for row in pandas.read_parquet(folder / "wander_grid.parquet").itertuples():
        own = samples[
            (samples["anchor"] == row.anchor) & (samples["temperature"] == row.temperature)
        ]
        for name, value in (("wander", row.wander), ("surprisal", row.surprisal)):
            agreement.near(f"drift: grid, {name}", value, own[name].mean(), 1e-12)
        agreement.near("drift: grid, concept", row.concept, own["concept"].mean(), 1e-12)
        gain = mass[row.anchor, row.temperature] - mass["none", row.temperature]
        agreement.near("drift: grid, gain", row.gain, gain.mean(), 1e-12)


def check_ablation(folder: Path, agreement: Agreement) -> None:
    """Losses of each part beyond nothing and beyond matched latents."""
    told = json.loads((folder / "ablation.json").read_text())
    rows = pandas.read_parquet(folder / "ablation_losses.parquet")
    table = rows.pivot_table(index="prompt_id", columns=["part", "control", "draw"], values="loss")
    for one in told["answers"]:
        own = table[one["part"], "", 0]
        agreement.near("ablation: losses", one["loss"], own.mean(), 1e-12)
    p, alone = [], np.arange(len(table))
    for one in told["contrasts"]:
        own, blur = table[one["part"], "", 0].to_numpy(), 0.0
        other = np.zeros(len(own))
        if one["against"] != "nothing":
            draws = table[one["part"], one["against"]]
            other = draws.mean(axis=1).to_numpy()
            if draws.shape[1] > 1:
                blur = float(draws.mean().std(ddof=1) / np.sqrt(draws.shape[1]))
                agreement.near("ablation: between draws", one["between_draws"], blur, 1e-12)
        reach = np.abs(own - other).max() or 1.0
        again = contrast(own, other, alone, blur=blur, step=reach / STEPS, span=None)
        agreement.near("ablation: contrasts", one["estimate"], again.estimate, 1e-12)
        for found, expected in zip((one["low"], one["high"]), again.ends[:2], strict=True):
            near = abs(found - expected) / reach
            agreement.near("ablation: intervals, share of the largest", near, 0.0, ROUNDED)
        agreement.near("ablation: p", one["p"], again.gain, ROUNDED)
        p.append(one["p"])
    for one, adjusted in zip(told["contrasts"], holm(np.array(p)), strict=True):
        agreement.near("ablation: p (Holm)", one["p_holm"], adjusted, 1e-12)


if __name__ == "__main__":
    agreed = Agreement()
    for name in sys.argv[1:]:
        compared(Path(name), agreed)
    print(agreed.table())  # noqa: T201  a script's answer
