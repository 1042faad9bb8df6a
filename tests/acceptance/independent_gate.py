"""The gate once more, from its tables and the decoders: NumPy, SciPy and pandas only.

Imports nothing of Loopscope. Expected children come from a pseudo-inverse in float64, ranks from
counting, the controls from dictionaries that are really built, the halves from draws of its own.
Where rounding decides (the last anchor of a pool, two residuals that are nearly equal) a rank is
an interval, and the one that was told must lie in it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
import scipy.stats

from tests.acceptance.independent_verdict import Agreement

NEAR = 1e-5
"""Residuals and distances this near to each other may lie either way: decoders are float32."""
FEWEST = 100
DRAWS = 4000
DEVIATIONS = 5.0
"""Two shares of random draws agree within so many standard errors of their difference."""


@dataclass
class Anchored:
    """What every coarse latent has, [coarse]: what it is compared by, and how it lives."""

    children: np.ndarray
    rate: np.ndarray
    decoder: np.ndarray
    living: np.ndarray

    def __post_init__(self) -> None:
        length = np.linalg.norm(self.decoder, axis=1)
        unit = np.divide(self.decoder, length[:, None], where=length[:, None] > 0,
                         out=np.zeros_like(self.decoder))  # fmt: skip
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, -np.inf)
        self.density = np.sort(cosines, axis=1)[:, -10:].mean(axis=1)
        self.norm = length
        seen = self.rate[self.rate > 0]
        self.log_rate = np.log(np.maximum(self.rate, seen.min() / 2 if seen.size else 1))
        self.columns = []
        for column in (self.log_rate, length, self.density):
            among = column[self.living]
            if among.std() > 1e-3 * max(1, abs(among.mean())):
                self.columns.append((column - among.mean()) / among.std())
        squared = [column**2 for column in self.columns]
        design = np.column_stack([np.ones(len(length)), *self.columns, *squared])
        log_count = np.log1p(self.children)
        self.weights = np.linalg.pinv(design[self.living]) @ log_count[self.living]
        self.fitted = design @ self.weights
        self.left = log_count - self.fitted

    def allowed(self, candidates: list[int]) -> np.ndarray:
        """What the error of a candidate's rate may have added to what is left of its count.

        1/k of the k tokens on which it fired is the variance of its logarithm; that share of the
        variance of all, of the way from the mean of all to the mean of the candidates, at the
        slope of the fit where the candidate lies.
        """
        spread = self.log_rate[self.living].std()
        if not spread > 1e-3 * max(1, abs(self.log_rate[self.living].mean())):
            return np.zeros(len(candidates))
        token = np.diff(np.unique(np.append(self.rate, 0))).min(initial=1)
        rate = self.columns[0]
        found = []
        for latent in candidates:
            tokens = max(self.rate[latent] / token, 1)
            share = min(1 / tokens / spread**2, 1)
            slope = self.weights[1] + 2 * self.weights[1 + len(self.columns)] * rate[latent]
            found.append(max(0.0, slope * share * np.mean(rate[candidates])))
        return np.array(found)

    def pool(self, latent: int, candidates: list[int], wanted: int) -> tuple[np.ndarray, ...]:
        """The latents that surely are among the ``wanted`` nearest, and those at the boundary."""
        others = np.setdiff1d(np.flatnonzero(self.living), candidates)
        distance = sum((x[others] - x[latent]) ** 2 for x in self.columns)
        last = np.sort(distance)[wanted - 1]
        near = np.abs(distance - last) <= NEAR * (1 + last)
        surely = others[(distance < last) & ~near]
        if len(surely) + near.sum() == wanted:  # only the last one itself
            return np.append(surely, others[near]), others[:0]
        return surely, others[near]

    def rank(self, latent: int, candidates: list[int], wanted: int) -> tuple[float, float]:
        """Return between which two places the latent stands among its pool, from 0 to 100."""
        surely, perhaps = self.pool(latent, candidates, wanted)
        place = candidates.index(latent)
        own = self.left[latent] - self.allowed(candidates)[place]
        least = most = 0.0
        for value in self.left[surely] - own:
            tied = abs(value) < 1e-8
            least += 0.5 if tied else value < -NEAR
            most += 0.5 if tied else value < NEAR
        open_places = wanted - len(surely)
        below = int((self.left[perhaps] < own + NEAR).sum())
        above = int((self.left[perhaps] > own - NEAR).sum())
        least += max(0, open_places - above)
        most += min(open_places, below)
        return 100 * (least + 0.5) / (wanted + 1), 100 * (most + 0.5) / (wanted + 1)

    def percentile(self, candidates: list[int], wanted: int, seed: int) -> float:
        """Return where the mean rank stands among sets drawn anew from the same pools."""
        generator = np.random.default_rng(seed)
        allowed = self.allowed(candidates)
        own, drawn = 0.0, np.zeros(DRAWS)
        for place, latent in enumerate(candidates):
            pool = np.concatenate(self.pool(latent, candidates, wanted))[:wanted]
            value = np.round(self.left[latent] - allowed[place], 9)
            all_ranks = scipy.stats.rankdata([value, *np.round(self.left[pool], 9)])
            own += all_ranks[0]
            drawn += generator.choice(all_ranks[1:], DRAWS)
        return 100 * (1 - (1 + (drawn >= own - 1e-9).sum()) / (1 + DRAWS))


def check_gate(folder: Path, decoder: np.ndarray, agreement: Agreement) -> None:
    """Compare gate.json with the tables beside it. Raises AssertionError where they differ.

    ``folder`` holds what a mapping writes and ``features_coarse.parquet``; ``decoder`` the rows of
    the coarse dictionary, not made unit. The cosine rule only: what the strict one compares is in
    no table.
    """
    gate = json.loads((folder / "gate.json").read_text())
    assert gate["rule"] == "cosine"
    features = pandas.read_parquet(folder / "features_coarse.parquet")
    summary = pandas.read_parquet(folder / "coarse_summary.parquet")
    draws = pandas.read_parquet(folder / "gate_draws.parquet")
    _counts(gate, summary, pandas.read_parquet(folder / "pairs.parquet"), agreement)
    rate = features["text_rate"].to_numpy()
    candidates = [anchor["coarse"] for anchor in gate["anchors"]]
    if candidates and not np.isnan(rate).any():
        living = summary["fires"].to_numpy() | (rate > 0)
        children = summary["children_cosine_rule"].to_numpy()
        anchored = Anchored(children, rate, decoder.astype(np.float64), living)
        _ranks(gate, anchored, candidates, draws, agreement)
    _controls(gate, draws, agreement)
    _halves(gate, draws, agreement)
    agreement.equal("gate: word", gate["verdict"], word(gate))


def _counts(gate, summary, pairs, agreement: Agreement) -> None:
    least = gate["minSubfeatures"]
    children = summary["children_cosine_rule"].to_numpy()
    enough = children >= least
    fires = summary["fires"].to_numpy()
    agreement.near("gate: shares that pass", gate["share_of_all"], enough.mean(), 1e-12)
    if fires.any():
        agreement.near(
            "gate: shares that pass", gate["share_of_firing"], enough[fires].mean(), 1e-12
        )
    below = pairs[pairs["child"]].groupby("coarse")["fine"].apply(set).to_dict()
    scores = []
    for anchor in gate["anchors"]:
        latent = anchor["coarse"]
        agreement.equal("gate: children", len(anchor["children"]), int(children[latent]))
        agreement.equal("gate: children", set(anchor["children"]), below.get(latent, set()))
        scores.append((
            anchor["passes"], anchor["selectivity"] * anchor["firing_rate_target"],
        ))  # fmt: skip
    best = max((int(children[a["coarse"]]) for a in gate["anchors"]), default=0)
    agreement.equal("gate: children", gate["best_count"], best)
    agreement.equal("gate: children", gate["count_rule_passes"], best >= least)
    if scores:
        first = max(range(len(scores)), key=lambda place: (scores[place], -place))
        agreement.equal("gate: steered", gate["steered"], gate["anchors"][first]["coarse"])


def _ranks(gate, anchored: Anchored, candidates: list[int], draws, agreement: Agreement) -> None:
    null = gate["null"]
    eligible = int(anchored.living.sum()) - int(anchored.living[candidates].sum())
    agreement.equal("gate: anchors to choose from", null["eligible"], eligible)
    wanted = min(null["wanted"], max(FEWEST, eligible // 10), eligible)
    table = draws[draws["source"] == "matched anchors"]
    assert len(table) == null["anchors"] == wanted
    if not wanted:
        return
    between = np.array([anchored.rank(latent, candidates, wanted) for latent in candidates])
    for entry, (low, high) in zip(gate["anchors"], between, strict=True):
        expected = np.expm1(anchored.fitted[entry["coarse"]])
        agreement.near("gate: expected children", entry["expected"], expected, 1e-4)
        told = entry["rank"]
        agreement.near("gate: ranks of candidates", told, np.clip(told, low, high), 1e-9)
    told, (low, high) = gate["mean_rank"], between.mean(axis=0)
    agreement.near("gate: mean rank", told, np.clip(told, low, high), 1e-8)
    # each anchor of a pool is in one set, so all ranks together are those from 1 to wanted + 1
    rest = (50 * (wanted + 1) - told) / wanted
    agreement.near("gate: mean rank of the sets", table["mean_rank"].mean(), rest, 1e-6)
    pools = [anchored.pool(latent, candidates, wanted) for latent in candidates]
    if not any(len(perhaps) for _, perhaps in pools):
        most = max(int(anchored.children[surely].max()) for surely, _ in pools)
        agreement.equal("gate: largest count of the sets", int(table["best_count"].max()), most)
        differences = {
            "rate_difference": anchored.rate,
            "norm_difference": anchored.norm,
            "density_difference": anchored.density,
        }
        for name, values in differences.items():
            mean = np.mean([
                np.abs(values[surely] - values[latent]).mean()
                for latent, (surely, _) in zip(candidates, pools, strict=True)
            ])  # fmt: skip
            agreement.near("gate: distance of anchors", null[name], mean, 1e-5)
    agreement.near(
        "gate: mean rank of the sets", null["median_mean_rank"], table["mean_rank"].median(), 1e-9
    )
    reach = int((table["mean_rank"] >= told).sum())
    agreement.equal("gate: draws that reach it", null["at_least_as_high"], reach)
    agreement.near("gate: percentiles", gate["percentile"], _percentile(reach, wanted), 1e-9)
    largest = gate["maximum"]
    agreement.equal("gate: children", largest["count"], gate["best_count"])
    reach = int((table["best_count"] >= largest["count"]).sum())
    agreement.near("gate: percentiles", largest["percentile"], _percentile(reach, wanted), 1e-9)
    again = anchored.percentile(candidates, wanted, seed=1)
    p, told_p = 1 - again / 100, 1 - gate["percentile"] / 100
    assert abs(p - told_p) <= within(p, wanted, DRAWS), ("percentile", gate["percentile"], again)


def _percentile(reach: int, of: int) -> float:
    return 100 * (1 - (1 + reach) / (1 + of))


def within(p: float, *draws: int) -> float:
    """Return how far two shares of so many random draws may lie apart."""
    least = 1 / (1 + min(draws))
    variance = max(p * (1 - p), least * (1 - least))
    return DEVIATIONS * float(np.sqrt(variance * sum(1 / n for n in draws)))


def _controls(gate, draws, agreement: Agreement) -> None:
    told = gate["control"]
    deciding = []
    for control in told["controls"]:
        counts = draws.loc[draws["source"] == control["kind"], "best_count"]
        assert len(counts) == control["dictionaries"]
        p = (1 + (counts >= control["observed"]).sum()) / (1 + len(counts))
        agreement.near("gate: p of controls", control["p"], p, 1e-12)
        agreement.near("gate: counts of controls", control["max_count"], counts.max(), 0)
        agreement.near("gate: counts of controls", control["median_count"], counts.median(), 0)
        if control["kind"] != "permuted pairs":
            agreement.equal("gate: children", control["observed"], gate["best_count"])
        agreement.equal(
            "gate: controls that decide", control["decides"], control["kind"] == "decoder rows"
        )
        deciding += [p] if control["decides"] else []
    agreement.near("gate: p of controls", told["p"], max(deciding), 1e-12)


def _halves(gate, draws, agreement: Agreement) -> None:
    """Name each half's outcome again; without a candidate it fails or tells nothing."""
    stability = gate["stability"]
    halves = draws[draws["source"] == "resample"]
    assert len(halves) == stability["resamples"]
    found = Counter()
    for half in halves.itertuples():
        if half.best_count >= gate["minSubfeatures"]:
            high = half.percentile >= gate["min_percentile"]
            found["stands out" if high else "passes"] += 1
        else:
            found["none" if np.isnan(half.mean_rank) else "fails"] += 1
    outcomes = stability["outcomes"]
    for name in ("stands out", "passes"):
        agreement.equal("gate: outcomes of halves", outcomes.get(name, 0), found[name])
    nothing = outcomes.get("fails", 0) + outcomes.get("untestable", 0)
    agreement.equal("gate: outcomes of halves", nothing, found["fails"] + found["none"])
    assert outcomes.get("fails", 0) >= found["fails"]
    whole = "fails"
    if gate["best_count"] >= gate["minSubfeatures"]:
        above = gate["percentile"] is not None and gate["percentile"] >= gate["min_percentile"]
        whole = "stands out" if above else "passes"
    elif not gate["anchors"] and _powerless(gate):
        whole = "untestable"
    agreement.equal("gate: outcomes of halves", stability["outcome"], whole)
    share = outcomes.get(whole, 0) / len(halves)
    agreement.near("gate: share of halves", stability["share"], share, 1e-12)


def _powerless(gate) -> bool:
    power = gate["selection"]
    return power["needed"] > min(power["top"], power["tested"])


def word(gate) -> str:
    """Return the gate's word by the rules as docs/science.md states them."""
    stable = gate["stability"]["share"] >= gate["stability"]["min_share"]
    if gate["best_count"] < gate["minSubfeatures"]:
        if not gate["anchors"] and _powerless(gate):
            return "INCONCLUSIVE"
        return "NO-GO" if stable else "INCONCLUSIVE"
    high = gate["percentile"] is not None and gate["percentile"] >= gate["min_percentile"]
    enough = gate["null"]["anchors"] >= FEWEST
    beaten = gate["control"]["p"] <= 1 - gate["min_percentile"] / 100 + 1e-9
    return "GO" if stable and high and enough and beaten else "INCONCLUSIVE"
