"""The verdict on steering: what paired contrasts over prompts allow to be said.

"Better" means that the multi arm beats coarse *and* beats fine: an intersection-union test
(Berger 1982), which needs no correction. So every answer is about one quantity: multi minus the
better single resolution, the smaller of the two contrasts. A null result is a result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.multiple_tests import holm
from loopscope.numerics.paired import (
    Contrast,
    detectable_difference,
    paired_contrast,
    prompts_needed,
)

PRIMARY = (("multi", "coarse"), ("multi", "fine"))
LEVEL_ONE_SIDED = 0.025

Scores = Mapping[str, NDArray[np.float64]]
"""Arm to its score per prompt; every arm has the same prompts in the same order."""


def decide(
    scores: Scores,
    arm_cosines: Mapping[str, float],
    *,
    min_difference: float,
    max_arm_cosine: float,
    seed: int,
    missing: Mapping[str, str],
    secondary: Mapping[str, Scores] | None = None,
) -> dict[str, Any]:
    """Return the verdict record (JSON-ready; what is not known is None, never 0).

    ``scores`` are concept scores, ``arm_cosines`` maps ``"coarse~multi"`` to the cosine of two
    arms' vectors, ``missing`` an arm that could not be built to the reason. Other arms in
    ``scores`` add the contrast multi − arm, which does not decide. ``secondary`` maps further
    outcomes to their scores (NaN where unknown); they are Holm-corrected and never decide.
    """
    contrasts = _contrasts(scores, seed)
    primary = [c for c in contrasts if c.contrast in {f"{a}-{b}" for a, b in PRIMARY}]
    binding = min(primary, key=lambda c: c.estimate) if primary else None
    verdict, reason = _untestable(scores, arm_cosines, max_arm_cosine, missing)
    if not verdict:
        assert binding is not None, "all arms are there"
        verdict, reason = _judge(primary, binding, min_difference)
    needed = (
        prompts_needed(binding, min_difference) if binding and verdict == "Inconclusive" else None
    )
    if needed is not None and binding is not None:
        reason = f"{reason}; {_need(binding, needed, min_difference)}"
    return {
        "verdict": verdict,
        "reason": reason,
        "contrast": binding.contrast if binding else None,
        "estimate": binding.estimate if binding else None,
        "low": binding.low if binding else None,
        "high": binding.high if binding else None,
        "p_intersection_union": _intersection_union_p(primary) if primary else None,
        "n": max((len(values) for values in scores.values()), default=0),
        "n_needed": needed,
        "detectable_difference": detectable_difference(binding) if binding else None,
        "min_difference": min_difference,
        "max_arm_cosine": max_arm_cosine,
        "arm_cosines": dict(sorted(arm_cosines.items())),
        "contrasts": [_record(contrast) for contrast in contrasts],
        "secondary": _secondary(secondary or {}, seed),
        "missing": dict(sorted(missing.items())),
    }


def _contrasts(scores: Scores, seed: int) -> list[Contrast]:
    others = sorted(set(scores) - {"multi", "coarse", "fine"})
    pairs = (*PRIMARY, *(("multi", other) for other in others))
    return [
        paired_contrast(f"{a}-{b}", scores[a], scores[b], seed)
        for a, b in pairs
        if a in scores and b in scores
    ]


def _secondary(outcomes: Mapping[str, Scores], seed: int) -> list[dict[str, Any]]:
    """Return the primary contrasts of each further outcome, Holm-corrected over all of them."""
    found: list[tuple[str, Contrast]] = []
    for outcome, scores in sorted(outcomes.items()):
        for a, b in PRIMARY:
            if a not in scores or b not in scores:
                continue
            known = ~(np.isnan(scores[a]) | np.isnan(scores[b]))
            if known.any():
                contrast = paired_contrast(f"{a}-{b}", scores[a][known], scores[b][known], seed)
                found.append((outcome, contrast))
    adjusted = holm(np.array([contrast.p_two_sided for _, contrast in found], dtype=np.float64))
    return [
        {"outcome": outcome, **_record(contrast), "p_holm": p}
        for (outcome, contrast), p in zip(found, adjusted.tolist(), strict=True)
    ]


def _intersection_union_p(primary: Sequence[Contrast]) -> float:
    return max(contrast.p_greater for contrast in primary)


def _untestable(
    scores: Scores,
    arm_cosines: Mapping[str, float],
    max_arm_cosine: float,
    missing: Mapping[str, str],
) -> tuple[str, str]:
    """Return ``NotTestable`` with the reason, or two empty strings."""
    absent = [arm for arm in ("coarse", "fine", "multi") if arm not in scores]
    if absent:
        why = "; ".join(f"{arm}: {missing.get(arm, 'not among the arms')}" for arm in absent)
        return "NotTestable", f"the contrast needs coarse, fine and multi ({why})"
    for pair in ("coarse~multi", "fine~multi"):
        cosine = arm_cosines.get(pair)
        if cosine is None:
            return "NotTestable", f"the cosine {pair} is not known"
        if cosine > max_arm_cosine:
            return (
                "NotTestable",
                f"the vectors {pair} have cosine {cosine:.3f}, above {max_arm_cosine:g}: "
                "they are the same intervention",
            )
    return "", ""


def _judge(
    primary: Sequence[Contrast], binding: Contrast, min_difference: float
) -> tuple[str, str]:
    """Return verdict and reason. Interval and sign-flip test must agree before anything is said.

    Worse than *either* resolution is enough for Refuted, so its level is halved (Bonferroni).
    """
    numbers = ", ".join(
        f"{c.contrast} {c.estimate:+.3f} [{c.low:+.3f}, {c.high:+.3f}]" for c in primary
    )
    seen = f"{numbers} over {binding.n} openings"
    p = _intersection_union_p(primary)
    if all(c.low > 0 for c in primary) and p <= LEVEL_ONE_SIDED:
        return "Supported", f"multi beats coarse and fine: {seen}, p {p:.2g}"
    worse = LEVEL_ONE_SIDED / len(PRIMARY)
    if any(c.high < 0 and c.p_less <= worse for c in primary):
        return "Refuted", f"multi is worse than a single resolution: {seen}"
    small = _small_against_the_better(primary, min_difference)
    if small is not None:
        return (
            "NoPracticalDifference",
            f"multi is not better than the better single resolution by {min_difference:g} or more "
            f"({small.contrast} stays below that), nor worse than either by as much: {seen}",
        )
    return "Inconclusive", f"the data allow more than one answer: {seen}"


def _small_against_the_better(
    primary: Sequence[Contrast], min_difference: float
) -> Contrast | None:
    """Return a contrast that keeps multi minus the better single resolution within ±δ, or None.

    That quantity is the smallest contrast, so both sides are tested at 0.05 as what they are. It
    is above −δ where *every* contrast is: each 90 % interval must start at or above −δ
    (intersection-union, no correction). It is below δ where *some* contrast is: one 95 % interval
    must end at or below δ (union of two one-sided tests, each at 0.025: Bonferroni). A large gain
    over the worse resolution is therefore no hindrance.
    """
    if any(c.low_90 < -min_difference for c in primary):
        return None
    below = [c for c in primary if c.high <= min_difference]
    return min(below, key=lambda c: c.high) if below else None


def _need(binding: Contrast, needed: int, min_difference: float) -> str:
    if not binding.sd > 1e-12:
        return (
            f"the openings show no spread in {binding.contrast}, so the interval is ±3/n; "
            f"{needed} openings would bound it by {min_difference:g}"
        )
    text = (
        f"about {needed} openings would detect {min_difference:g} at the spread seen "
        f"(sd {binding.sd:.2f}, power 0.8)"
    )
    if needed <= binding.n:
        text += (
            f", which {binding.n} openings offer already: what was seen is neither clearly "
            f"different from 0 nor clearly smaller than {min_difference:g}"
        )
    return text


def _record(contrast: Contrast) -> dict[str, Any]:
    sd = None if math.isnan(contrast.sd) else contrast.sd
    return {**asdict(contrast), "sd": sd, "p_two_sided": contrast.p_two_sided}
