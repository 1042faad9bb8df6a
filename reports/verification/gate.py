"""The gate from its draws and from the tables of latents: counts, percentiles, p and the word."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from loopscope.numerics.gate.rule import (
    GateEvidence,
    GateRules,
    SelectionPower,
    decide,
    outcome_of,
    steered_first,
)
from loopscope.numerics.statistics.multiple_tests import exceedance
from loopscope.numerics.statistics.perfect import perfect_latents_needed, perfect_p_value
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.latents import candidates_of, columns_of, prompts_of
from loopscope.reports.verification.opened import OpenBundle
from loopscope.specs.artifacts.decomposition import bundled_features
from loopscope.specs.artifacts.gate import Gate, GateControl
from loopscope.specs.artifacts.mapping import (
    COARSE_SUMMARY,
    DIRECTIONS,
    FEATURES_TEST,
    GATE,
    GATE_DRAWS,
    PAIRS,
)
from loopscope.specs.rules import Selection

ANCHORS = "gate: anchors, their children and which is steered"
COUNTS = "gate: counts of children and shares that pass"
POWER = "gate: power of the selection"
RANKS = "gate: mean rank and percentiles among matched anchors"
CONTROLS = "gate: p and counts of controls"
HALVES = "gate: outcomes of halves"
WORD = "gate: word and doubts"
METRICS = "gate: numbers of the manifest"
_METRICS = (
    "verdict", "mean_rank", "percentile", "confirmed", "confirmation", "cautioned", "share_of_all",
    "share_of_firing", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class _Tables:
    """What a gate is computed from."""

    bundle: OpenBundle
    gate: Gate
    draws: pandas.DataFrame
    summary: pandas.DataFrame
    coarse: pandas.DataFrame
    pairs: pandas.DataFrame

    @property
    def rules(self) -> GateRules:
        """The declared limits."""
        declared = self.bundle.experiment["gate"]
        return GateRules(
            declared["minSubfeatures"],
            declared["nullAnchors"],
            declared["minPercentile"],
            declared["minStability"],
        )

    @property
    def rule(self) -> str:
        """The rule by which children are counted."""
        return self.bundle.experiment["gate"]["rule"]

    def counts(self, candidates: list[int]) -> list[int]:
        """Return how many children each of some latents has."""
        by_latent = self.summary.set_index("coarse")[f"children_{self.rule}_rule"]
        return [int(by_latent.loc[latent]) for latent in candidates]


def check_gate(bundle: OpenBundle, findings: Findings) -> None:
    """Compute the gate again from what stands beside it."""
    with findings.part(WORD, GATE.name):
        gate, draws, summary, pairs = (
            bundle.document(GATE),
            bundle.table(GATE_DRAWS),
            bundle.table(COARSE_SUMMARY),
            bundle.table(PAIRS),
        )
        coarse = bundle.frame(bundled_features("coarse"))
        if gate is None:
            return
        if draws is None or summary is None or pairs is None or coarse is None:
            findings.leave_out("the gate", "a table beside gate.json is missing")
            return
        tables = _Tables(bundle, gate, draws, summary, coarse, pairs)
        candidates = candidates_of(bundle, "coarse")
        _check_anchors(tables, candidates, findings)
        _check_directions(tables, findings)
        _check_counts(tables, candidates, findings)
        _check_word(tables, candidates, findings)
        _check_metrics(tables, findings)
    findings.leave_out(
        "ranks and expected children of single candidates, and how alike their anchors are",
        "they need the decoder rows",
    )
    findings.leave_out(
        "the draws of the gate (anchors, control dictionaries, halves)",
        "drawing them again needs decoder rows and activations; what is told of them is computed",
    )
    findings.leave_out(f"sentences of {GATE.name} and {DIRECTIONS.name}", "they are words")
    findings.leave_out(
        "how all fine latents read beside an anchor", "the table holds the nearest of them"
    )


def _check_anchors(tables: _Tables, candidates: list[int], findings: Findings) -> None:
    gate, least = tables.gate, tables.rules.subfeatures_min
    features = tables.coarse.set_index("latent")
    selection = Selection.model_validate(tables.bundle.experiment["selection"])
    findings.same(ANCHORS, "candidates", [one["coarse"] for one in gate["anchors"]], candidates)
    scores = [
        float(features.loc[c, "selectivity"] * features.loc[c, "firing_rate_target"])
        for c in candidates
    ]
    counts = np.array(tables.counts(candidates), dtype=np.int64)
    wanted = tables.bundle.experiment["mapping"].get("anchor")
    place_named = candidates.index(wanted) if wanted in candidates else None
    order = steered_first(np.array(scores), counts, least, place_named)
    confirmed = _confirmed(tables)
    for place, one in enumerate(gate["anchors"]):
        latent, where = one["coarse"], f"anchors[{place}]"
        own = tables.pairs[(tables.pairs["coarse"] == latent) & tables.pairs["child"]]
        row = features.loc[latent]
        findings.same(ANCHORS, f"{where}.children", one["children"], own["fine"].tolist())
        findings.same(ANCHORS, f"{where}.cosines", one["cosines"], own["cosine"].tolist())
        findings.same(COUNTS, f"{where}.children in all", len(own), int(counts[place]))
        for name in ("selectivity", "firing_rate_target"):
            findings.same(ANCHORS, f"{where}.{name}", dict(one)[name], float(row[name]))
        findings.same(ANCHORS, f"{where}.passes", one["passes"], len(own) >= least)
        findings.same(ANCHORS, f"{where}.steered", one["steered"], place == order[0])
        caution = selection.caution({str(n): v for n, v in row.items() if not isinstance(v, str)})
        findings.same(ANCHORS, f"{where}.caution", one["caution"], caution)
        passes = None if confirmed is None else confirmed[latent]
        findings.same(ANCHORS, f"{where}.confirmed", one["confirmed"], passes)
    steered = candidates[order[0]] if order.size else None
    findings.same(ANCHORS, "steered", gate["steered"], steered)
    cautioned = sum(one["caution"] is not None for one in gate["anchors"])
    findings.same(ANCHORS, "cautioned", gate["cautioned"], cautioned)
    passing = None if confirmed is None else sum(confirmed.values())
    findings.same(ANCHORS, "confirmed", gate["confirmed"], passing)


def _confirmed(tables: _Tables) -> dict[int, bool] | None:
    table = tables.bundle.table(FEATURES_TEST)
    if table is None:
        return None
    own = table[table["side"] == "coarse"]
    pairs = zip(own["latent"].tolist(), own["confirmed"].tolist(), strict=True)
    return {int(latent): bool(passes) for latent, passes in pairs}


def _check_directions(tables: _Tables, findings: Findings) -> None:
    found = tables.bundle.document(DIRECTIONS)
    if found is None:
        return
    anchors = {one["coarse"]: one for one in tables.gate["anchors"]}
    steered = tables.gate["steered"]
    findings.same(ANCHORS, f"{DIRECTIONS.name} anchor", found["anchor"], steered)
    findings.same(ANCHORS, f"{DIRECTIONS.name} anchors", sorted(found["anchors"]), sorted(anchors))
    children = [] if steered is None else anchors[steered]["children"]
    findings.same(ANCHORS, f"{DIRECTIONS.name} children", found["children"], children)
    every = sorted({child for one in anchors.values() for child in one["children"]})
    findings.same(ANCHORS, f"{DIRECTIONS.name} all", found["children_of_all"], every)


def _check_counts(tables: _Tables, candidates: list[int], findings: Findings) -> None:
    gate, least, summary = tables.gate, tables.rules.subfeatures_min, columns_of(tables.summary)
    passes = summary["children_cosine_rule"] >= least
    findings.column(COUNTS, "passes_cosine_rule", summary["passes_cosine_rule"], passes)
    other = "strict" if tables.rule == "cosine" else "cosine"
    for place, recorded, rule in (
        ("", gate, tables.rule),
        ("other_rule.", gate["other_rule"], other),
    ):
        passing, fires = summary[f"passes_{rule}_rule"], summary["fires"]
        both, firing = int((passing & fires).sum()), int(fires.sum())
        shares = {
            "n_all": len(passing),
            "n_firing": firing,
            "passing_all": int(passing.sum()),
            "passing_firing": both,
            "share_of_all": float(passing.mean()),
            "share_of_firing": both / firing if firing else None,
        }
        for name, value in shares.items():
            findings.same(COUNTS, f"{place}{name}", dict(recorded)[name], value)
    findings.same(COUNTS, "other_rule.rule", gate["other_rule"]["rule"], other)
    findings.same(COUNTS, "rule", gate["rule"], tables.rule)
    findings.same(COUNTS, "minSubfeatures", gate["minSubfeatures"], least)
    most = max(tables.counts(candidates), default=0)
    findings.same(COUNTS, "best_count", gate["best_count"], most)
    findings.same(COUNTS, "count_rule_passes", gate["count_rule_passes"], most >= least)
    corner, reads = gate["empty_corner"], gate["readings"]
    aligned = reads["match"] + reads["geometric-only"]
    findings.same(COUNTS, "empty_corner.count", corner["count"], reads["geometric-only"])
    findings.same(COUNTS, "empty_corner_count", gate["empty_corner_count"], corner["count"])
    findings.same(COUNTS, "empty_corner.of", corner["of"], aligned)
    share = corner["count"] / aligned if aligned else None
    findings.same(COUNTS, "empty_corner.share", corner["share"], share)


def _check_word(tables: _Tables, candidates: list[int], findings: Findings) -> None:
    """Compute ranks, controls, halves and the word that follows from them."""
    gate, rules = tables.gate, tables.rules
    power = _check_power(tables, findings)
    percentile, mean_rank = _check_ranks(tables, findings)
    control_p = _check_controls(tables, findings)
    best = max(tables.counts(candidates), default=0)
    powerless = not candidates and power.is_missing
    own = outcome_of(best, percentile, rules, powerless=powerless)
    stability = _check_halves(tables, own, findings)
    evidence = GateEvidence(
        candidates=len(candidates),
        power=power,
        best_count=best,
        text_measured=bool(np.isfinite(tables.coarse["text_rate"]).all()),
        null_draws=int((tables.draws["source"] == "matched anchors").sum()),
        mean_rank=mean_rank,
        percentile=percentile,
        control_p=control_p,
        stability=stability,
    )
    verdict, doubts = decide(evidence, rules)
    findings.same(WORD, "verdict", gate["verdict"], verdict)
    findings.same(WORD, "doubts", gate["doubts"], doubts)


def _check_power(tables: _Tables, findings: Findings) -> SelectionPower:
    recorded, selection = tables.gate["selection"], tables.bundle.experiment["selection"]
    tested = max(1, int(tables.coarse["p_value"].notna().sum()))
    smallest = perfect_p_value(*prompts_of(tables.bundle, "discover"))
    needed = perfect_latents_needed(smallest, tested, selection["maxQ"])
    power = SelectionPower(smallest, tested, needed, selection["top"], recorded["prompts_needed"])
    for name in ("smallest_p", "tested", "needed", "top"):
        findings.same(POWER, f"selection.{name}", dict(recorded)[name], getattr(power, name))
    return power


def _check_ranks(tables: _Tables, findings: Findings) -> tuple[float, float]:
    """Return the percentile of the mean rank, and that rank, NaN without matched anchors."""
    gate, sets = tables.gate, tables.draws[tables.draws["source"] == "matched anchors"]
    null, ranks = gate["null"], [one["rank"] for one in gate["anchors"]]
    many = len(sets)
    recorded = gate["mean_rank"]
    mean_rank = math.nan if recorded is None else recorded
    if many and None not in ranks and ranks:
        findings.same(RANKS, "mean_rank", recorded, float(np.mean([r or 0.0 for r in ranks])))
    drawn = sets["mean_rank"].to_numpy(dtype=np.float64)
    percentile = 100 * (1 - exceedance(drawn, mean_rank)) if many else math.nan
    found: dict[str, Any] = {
        "anchors": many,
        "wanted": tables.rules.null_anchors,
        "median_mean_rank": float(np.median(drawn)) if many else None,
        "at_least_as_high": int((drawn >= mean_rank).sum()),
    }
    for name, value in found.items():
        findings.same(RANKS, f"null.{name}", dict(null)[name], value)
    findings.same(RANKS, "percentile", gate["percentile"], percentile)
    findings.same(RANKS, "min_percentile", gate["min_percentile"], tables.rules.percentile_min)
    passes = percentile >= tables.rules.percentile_min
    findings.same(RANKS, "rank_rule_passes", gate["rank_rule_passes"], passes)
    largest, counts = gate["maximum"], sets["best_count"].to_numpy()
    if tables.rule == "cosine":
        findings.same(RANKS, "maximum.count", largest["count"], gate["best_count"])
    count = largest["count"]
    beaten = 100 * (1 - exceedance(counts, count)) if many else None
    findings.same(RANKS, "maximum.percentile", largest["percentile"], beaten)
    middle = float(np.median(counts)) if many else None
    findings.same(RANKS, "maximum.median_count", largest["median_count"], middle)
    findings.same(
        RANKS, "maximum.max_count", largest["max_count"], int(counts.max()) if many else None
    )
    at_least = int((counts >= count).sum())
    findings.same(RANKS, "maximum.at_least_as_many", largest["at_least_as_many"], at_least)
    return percentile, mean_rank


def _check_controls(tables: _Tables, findings: Findings) -> float:
    """Return the largest p of the controls that decide."""
    control = tables.gate["control"]
    for one in control["controls"]:
        _check_control(tables, one, findings)
    deciding = [one for one in control["controls"] if one["decides"]]
    hardest = max(deciding, key=lambda one: one["p"])
    for name, value in hardest.items():
        findings.same(CONTROLS, f"control.{name}", dict(control)[name], value)
    return hardest["p"]


def _check_control(tables: _Tables, one: GateControl, findings: Findings) -> None:
    draws = tables.draws[tables.draws["source"] == one["kind"]]["best_count"].to_numpy()
    if not len(draws) and tables.gate["anchors"]:
        findings.differs(CONTROLS, one["kind"], "told", "no draws")
        return
    found = {
        "dictionaries": len(draws),
        "p": exceedance(draws, one["observed"]),
        "median_count": float(np.median(draws)),
        "max_count": int(draws.max()),
    }
    for name, value in found.items():
        findings.same(CONTROLS, f"{one['kind']}.{name}", dict(one)[name], value)
    strict, permuted = tables.rule == "strict", one["kind"] == "permuted pairs"
    decides = one["kind"] == "decoder rows" or (permuted and strict)
    findings.same(CONTROLS, f"{one['kind']}.decides", one["decides"], decides)
    observed = _matches(tables) if permuted and not strict else tables.gate["best_count"]
    findings.same(CONTROLS, f"{one['kind']}.observed", one["observed"], observed)


def _matches(tables: _Tables) -> int:
    """Return how many children of an anchor correlate with it, of the one with most of these."""
    least = tables.bundle.experiment["mapping"]["minCorrelation"]
    found = tables.pairs[tables.pairs["child"] & (tables.pairs["correlation"] >= least)]
    return int(found.groupby("coarse").size().max()) if len(found) else 0


def _check_halves(tables: _Tables, own: str, findings: Findings) -> float:
    """Return the share of halves that say the same.

    Whether a half that selected nothing could have is not in its draw: as many of those without a
    candidate are taken to be untestable as are told.
    """
    gate, rules = tables.gate, tables.rules
    recorded = gate["stability"]
    halves = tables.draws[tables.draws["source"] == "resample"]
    outcomes: Counter[str] = Counter(
        outcome_of(int(best), float(percentile), rules)
        for best, percentile in zip(halves["best_count"], halves["percentile"], strict=True)
    )
    nothing = int(((halves["best_count"] == 0) & halves["mean_rank"].isna()).sum())
    untestable = min(nothing, recorded["outcomes"].get("untestable", 0))
    if untestable:
        outcomes["fails"] -= untestable
        outcomes["untestable"] += untestable
    told = {name: count for name, count in sorted(outcomes.items()) if count}
    findings.same(HALVES, "stability.outcomes", recorded["outcomes"], told)
    findings.same(HALVES, "stability.outcome", recorded["outcome"], own)
    findings.same(HALVES, "stability.resamples", recorded["resamples"], len(halves))
    findings.same(HALVES, "stability.min_share", recorded["min_share"], rules.stability_min)
    share = outcomes[own] / len(halves)
    findings.same(HALVES, "stability.share", recorded["share"], share)
    return share


def _check_metrics(tables: _Tables, findings: Findings) -> None:
    manifest = tables.bundle.manifest("mapping")
    if manifest is None:
        return
    metrics, gate = manifest["metrics"], tables.gate
    for name in _METRICS:
        findings.same(METRICS, name, metrics[name], dict(gate)[name])
    steered = next((one for one in gate["anchors"] if one["steered"]), None)
    counted = {
        "anchors": len(gate["anchors"]),
        "passing": sum(one["passes"] for one in gate["anchors"]),
        "anchor": gate["steered"],
        "anchor_rank": None if steered is None else steered["rank"],
        "children": 0 if steered is None else len(steered["children"]),
        "null_anchors": gate["null"]["anchors"],
        "maximum_percentile": gate["maximum"]["percentile"],
        "control_p": gate["control"]["p"],
        "stability": gate["stability"]["share"],
        "empty_corner_count": gate["empty_corner"]["count"],
        "empty_corner_share": gate["empty_corner"]["share"],
        "edges_tested": int((tables.pairs["edge"] != "not tested").sum()),
        "edges_significant": int((tables.pairs["edge"] == "not independent").sum()),
    }
    for name, value in counted.items():
        findings.same(METRICS, name, metrics[name], value)
