"""The gate's answer in words and numbers, as it stands in ``gate.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from loopscope.numerics.gate.rule import READINGS, GateRule
from loopscope.numerics.latents.features import LatentStatistics
from loopscope.specs.artifacts.gate import Gate, GateAnchor, Shares
from loopscope.worker.stages.mapping.anchors import Anchor
from loopscope.worker.stages.mapping.calibrated_gate import CalibratedGate
from loopscope.worker.stages.mapping.confirmation import Confirmation
from loopscope.worker.stages.mapping.sides import Rules


def gate_report(
    statistics: LatentStatistics,
    anchors: Sequence[Anchor],
    steered: int | None,
    summary: Mapping[str, NDArray[Any]],
    rules: Rules,
    confirmation: Confirmation,
    calibrated: CalibratedGate,
    cautions: Sequence[str | None],
) -> Gate:
    """Return the content of ``gate.json``; ``loopscope.numerics.gate.rule.decide`` decided.

    ``anchors`` come best first, the one at the place ``steered`` is what steering goes along
    (None without anchors), ``summary`` holds the columns of ``coarse_summary.parquet``. The
    shares are those of all coarse latents that would pass: with a high one a GO is worth little.
    """
    rule, subfeatures_min = rules.rule, rules.gate.subfeatures_min
    confirmed = confirmation.confirmed
    entries: list[GateAnchor] = [
        {
            "coarse": anchor.coarse,
            "selectivity": float(statistics.selectivity[anchor.coarse]),
            "firing_rate_target": float(statistics.firing_rate_target[anchor.coarse]),
            "children": anchor.children.tolist(),
            "cosines": anchor.children_cosines.tolist(),
            "passes": len(anchor.children) >= subfeatures_min,
            "expected": calibrated.expected[place],
            "rank": calibrated.ranks[place],
            "steered": place == steered,
            "confirmed": None if confirmed is None else bool(confirmed[place]),
            "caution": cautions[place],
        }
        for place, anchor in enumerate(anchors)
    ]
    readings = {name: sum(anchor.readings[name] for anchor in anchors) for name in READINGS}
    aligned = readings["match"] + readings["geometric-only"]
    other: GateRule = "strict" if rule == "cosine" else "cosine"
    chosen = _shares(summary, rule)
    return {
        "verdict": calibrated.verdict,
        "doubts": calibrated.doubts,
        "count_rule_passes": any(entry["passes"] for entry in entries),
        **calibrated.record,
        "rule": rule,
        "minSubfeatures": subfeatures_min,
        "anchors": entries,
        "steered": None if steered is None else entries[steered]["coarse"],
        "confirmed": None if confirmed is None else int(confirmed.sum()),
        "confirmation": confirmation.sentence,
        "cautioned": sum(caution is not None for caution in cautions),
        **chosen,
        "other_rule": {"rule": other, **_shares(summary, other)},
        "readings": readings,
        "empty_corner_count": readings["geometric-only"],
        "empty_corner": {
            "count": readings["geometric-only"],
            "of": aligned,
            "share": readings["geometric-only"] / aligned if aligned else None,
            "unobserved": sum(anchor.aligned_unobserved for anchor in anchors),
        },
        "reason": _reason(entries, chosen, rules, calibrated),
    }


def _shares(summary: Mapping[str, NDArray[Any]], rule: GateRule) -> Shares:
    """Return how many coarse latents pass; a share of nothing is None."""
    passes, fires = summary[f"passes_{rule}_rule"], summary["fires"]
    firing, passing, both = int(fires.sum()), int(passes.sum()), int((passes & fires).sum())
    return {
        "n_all": len(passes),
        "n_firing": firing,
        "passing_all": passing,
        "passing_firing": both,
        "share_of_all": passing / len(passes),
        "share_of_firing": both / firing if firing else None,
    }


def _reason(
    entries: Sequence[GateAnchor],
    shares: Shares,
    rules: Rules,
    calibrated: CalibratedGate,
) -> str:
    """Return the numbers behind the verdict, what speaks against a firmer one last."""
    if not entries:
        return "; ".join(calibrated.doubts)
    record, least = calibrated.record, rules.gate.subfeatures_min
    passing = sum(entry["passes"] for entry in entries)
    steered = next(entry for entry in entries if entry["steered"])
    parts = [
        f"{passing} of {len(entries)} anchors have at least {least} children by the "
        f"{rules.rule} rule (most: {record['best_count']})",
        f"steered is coarse latent {steered['coarse']} with {len(steered['children'])} children, "
        + _placed("rank", steered["rank"])
        + " among its matched anchors",
        f"{_placed('mean rank', record['mean_rank'])} among matched anchors stands "
        f"at {_placed('percentile', record['percentile'])} of {record['null']['anchors']} sets",
        f"of all {shares['n_all']} coarse latents {shares['passing_all']} have as many, of the "
        f"{shares['n_firing']} that fire {shares['passing_firing']}",
        f"{record['stability']['share']:.0%} of {record['stability']['resamples']} resamples "
        "say the same",
    ]
    if calibrated.verdict != "GO":
        parts.append(f"{calibrated.verdict}, because " + ", and ".join(calibrated.doubts))
    return "; ".join(parts)


def _placed(name: str, value: float | None) -> str:
    return f"{name} not known" if value is None else f"{name} {value:.1f}"
