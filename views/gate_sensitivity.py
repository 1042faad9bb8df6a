"""The gate's answer with other settings, from what a mapping stored of its draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
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
from loopscope.specs.artifacts.gate import Gate


@dataclass(frozen=True)
class GateRange:
    """Values of ``minSubfeatures`` from ``low`` to ``high`` that give one answer.

    ``anchor`` is the one that would be steered, None without any, and ``children`` are its own;
    ``is_last``: the same holds for everything above.
    """

    low: int
    high: int
    verdict: str
    anchor: int | None
    children: frozenset[int] = frozenset()
    is_last: bool = False


@dataclass(frozen=True)
class GateSetting:
    """What the gate would say at one setting, by the least number of children."""

    min_cosine: float
    min_correlation: float
    max_q: float
    is_declared: bool
    ranges: tuple[GateRange, ...]

    def at(self, count: int) -> GateRange:
        """Return the range that holds ``count``, which is at least 1."""
        return next((one for one in self.ranges if count <= one.high), self.ranges[-1])


@dataclass(frozen=True)
class _Open:
    """A gate at one setting that may be asked for any number of children.

    ``anchors`` come best first, with their ``children``; ``halves`` are the largest count of each
    half, whether its mean rank passes, and whether it could have selected nothing.
    """

    anchors: list[int]
    children: list[frozenset[int]]
    best_count: int
    mean_rank: float
    percentile: float
    null_draws: int
    control_p: float
    power: SelectionPower
    halves: list[tuple[int, bool, bool]]
    gate: Gate

    def judged(self, count: int) -> tuple[str, int | None, frozenset[int]]:
        """Return verdict, steered anchor and its children; ``rule.decide`` decides."""
        wanted, least = self.gate["null"]["wanted"], self.gate["min_percentile"]
        rules = GateRules(count, wanted, least, self.gate["stability"]["min_share"])
        powerless = not self.anchors and self.power.is_missing
        own = outcome_of(self.best_count, self.percentile, rules, powerless=powerless)
        same = sum(
            outcome_of(best, 100.0 if passes else 0.0, rules, powerless=none) == own
            for best, passes, none in self.halves
        )
        evidence = GateEvidence(
            candidates=len(self.anchors),
            power=self.power,
            best_count=self.best_count,
            text_measured=True,
            null_draws=self.null_draws,
            mean_rank=self.mean_rank,
            percentile=self.percentile,
            control_p=self.control_p,
            stability=same / len(self.halves),
        )
        verdict = decide(evidence, rules)[0]
        best_first = -np.arange(len(self.anchors), dtype=np.float64)
        counts = np.array([len(own) for own in self.children], dtype=np.int64)
        order = steered_first(best_first, counts, count)
        if not order.size:
            return verdict, None, frozenset()
        return verdict, self.anchors[order[0]], self.children[order[0]]

    def ranges(self, up_to: int) -> list[GateRange]:
        """Return the answers for all counts, neighbours of one answer together.

        Between one more than some candidate or half has and the next such count nothing changes.
        """
        found = [self.best_count, *(len(own) for own in self.children)]
        steps = sorted({1, *(n + 1 for n in found), *(best + 1 for best, *_ in self.halves)})
        firsts = [next(same) for _, same in groupby(steps, key=self.judged)]
        ends = [low - 1 for low in firsts[1:]] + [max(firsts[-1], up_to)]
        last = len(firsts) - 1
        return [
            GateRange(low, high, *self.judged(low), place == last)
            for place, (low, high) in enumerate(zip(firsts, ends, strict=True))
        ]


def gate_by_min_subfeatures(gate: Gate, draws: pandas.DataFrame) -> list[GateRange]:
    """Return the gate's verdict and the steered anchor at every count, neighbours together.

    ``draws`` is ``gate_draws.parquet``. Exact: ranks, controls and the candidates of every half do
    not depend on the count, which only asks whether the largest reaches it. Empty where the
    declared verdict cannot be had again: made by other rules, or without what draws hold today.
    """
    found = _declared(gate, draws)
    declared = gate["minSubfeatures"]
    if found is None or found.judged(declared)[:2] != (gate["verdict"], gate.get("steered")):
        return []
    return found.ranges(declared)


def gate_by_settings(
    gate: Gate, settings: pandas.DataFrame, declared: Mapping[str, float]
) -> list[GateSetting]:
    """Return what the gate would say at each stored setting, from the lowest cosine on.

    ``settings`` is ``gate_settings.parquet``, ``declared`` the mapping's own ``minCosine``,
    ``minCorrelation`` and ``maxQ``. Empty where the declared verdict cannot be had again.
    """
    count = gate["minSubfeatures"]
    own = tuple(declared[name] for name in ("minCosine", "minCorrelation", "maxQ"))
    found = []
    for row in settings.to_dict("records"):
        asked = _stored(gate, row)
        cosine, correlation, q = (
            float(row[name]) for name in ("min_cosine", "min_correlation", "max_q")
        )
        is_declared = (cosine, correlation, q) == own
        said = (gate["verdict"], gate.get("steered"))
        if is_declared and asked.judged(count)[:2] != said:
            return []
        found.append(GateSetting(cosine, correlation, q, is_declared, tuple(asked.ranges(count))))
    return found if any(one.is_declared for one in found) else []


def steering_note(one: GateRange, gate: Gate, policy: str) -> str:
    """Return why this run's steering does not answer for a setting, empty if it does."""
    if one.anchor is None:
        return ""
    if policy == "enforce" and one.verdict != "GO":
        return "no steering: the gate's policy is enforce"
    if one.anchor != gate.get("steered") or (policy == "enforce" and gate["verdict"] != "GO"):
        return f"steers C-{one.anchor}: needs another steering run"
    own = next(a["children"] for a in gate["anchors"] if a["coarse"] == one.anchor)
    if one.children != frozenset(own):
        return f"C-{one.anchor} has other children: needs another steering run"
    return ""


def _stored(gate: Gate, row: Mapping[Any, Any]) -> _Open:
    """Return the gate of one row of ``gate_settings.parquet``."""
    anchors = [int(latent) for latent in row["candidates"]]
    ends = np.cumsum(row["children_of"])[:-1]
    children = np.split(np.asarray(row["children"]), ends) if anchors else []
    halves = zip(row["half_counts"], row["half_passes"], row["half_powerless"], strict=True)
    return _Open(
        anchors=anchors,
        children=[frozenset(part.tolist()) for part in children],
        best_count=int(row["best_count"]),
        mean_rank=float(row["mean_rank"]),
        percentile=float(row["percentile"]),
        null_draws=int(row["null_anchors"]),
        control_p=float(row["control_p"]),
        power=replace(SelectionPower(**gate["selection"]), needed=int(row["needed"])),
        halves=[(int(best), bool(passes), bool(none)) for best, passes, none in halves],
        gate=gate,
    )


def _declared(gate: Gate, draws: pandas.DataFrame) -> _Open | None:
    """Return the gate as declared; None where its draws do not hold what they hold today."""
    if not {"selection", "stability", "control", "null", "best_count", "mean_rank"} <= set(gate):
        return None
    if "mean_rank" not in draws:
        return None
    halves = draws[draws["source"] == "resample"]
    nothing = (halves["best_count"] == 0) & halves["mean_rank"].isna()
    untestable = gate["stability"]["outcomes"].get("untestable", 0)
    if untestable not in (0, int(nothing.sum())) or len(halves) != gate["stability"]["resamples"]:
        return None
    return _Open(
        anchors=[one["coarse"] for one in gate["anchors"]],
        children=[frozenset(one["children"]) for one in gate["anchors"]],
        best_count=gate["best_count"],
        mean_rank=math.nan if gate["mean_rank"] is None else gate["mean_rank"],
        percentile=math.nan if gate["percentile"] is None else gate["percentile"],
        null_draws=gate["null"]["anchors"],
        control_p=gate["control"]["p"],
        power=SelectionPower(**gate["selection"]),
        halves=list(
            zip(
                halves["best_count"].tolist(),
                (halves["percentile"] >= gate["min_percentile"]).tolist(),
                (nothing & bool(untestable)).tolist(),
                strict=True,
            )
        ),
        gate=gate,
    )
