"""The verdict on steering: paired contrasts by prompt, their intervals, and what they allow.

"Better" means that the multi arm beats coarse *and* beats fine. The unit is the prompt: concept
scores are averaged over strengths and samples first. A null result is a result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
RESAMPLES_PER_BLOCK = 1_000
Z_TWO_SIDED_95 = 1.96
Z_POWER_80 = 0.8416
PRIMARY = (("multi", "coarse"), ("multi", "fine"))


@dataclass(frozen=True)
class Contrast:
    """A mean paired difference over prompts with its 95 % interval.

    ``sd`` is the standard deviation of the prompt differences (NaN for one prompt).
    """

    contrast: str
    estimate: float
    low: float
    high: float
    n: int
    sd: float


def bootstrap_interval(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean over the first axis.

    10,000 resamples of whole prompts (Efron and Tibshirani 1993, chapter 13). NaN without values.
    """
    n = len(values)
    if n == 0:
        return float("nan"), float("nan")
    generator = np.random.Generator(np.random.Philox(key=seed))
    means = []
    for _ in range(0, RESAMPLES, RESAMPLES_PER_BLOCK):
        drawn = generator.integers(0, n, size=(RESAMPLES_PER_BLOCK, n))
        means.append(values[drawn].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def paired_contrast(
    name: str, first: NDArray[np.float64], second: NDArray[np.float64], seed: int
) -> Contrast:
    """Return the contrast first − second over prompts (scores in [0, 1], same order).

    Where every prompt shows the same difference the bootstrap has no width and says nothing; then
    the interval is that of a proportion never seen, ± 3 / n (Hanley and Lippman-Hand 1983).
    """
    difference = first - second
    n = len(difference)
    if n == 0:
        raise ValueError("a contrast needs at least one prompt")
    estimate = float(difference.mean())
    sd = float(difference.std(ddof=1)) if n > 1 else float("nan")
    if n > 1 and np.ptp(difference) > 1e-12:
        low, high = bootstrap_interval(difference, seed)
    else:
        low, high = max(-1.0, estimate - 3.0 / n), min(1.0, estimate + 3.0 / n)
    return Contrast(name, estimate, low, high, n, sd)


def prompts_needed(contrast: Contrast, min_difference: float) -> int:
    """Return the prompts that detect ``min_difference`` with power 0.8 at two-sided 0.05.

    n = ((1.96 + 0.8416) · sd / δ)² for paired differences; 3 / δ where no spread was seen.
    """
    if not contrast.sd > 1e-12:
        return math.ceil(3.0 / min_difference)
    return math.ceil(((Z_TWO_SIDED_95 + Z_POWER_80) * contrast.sd / min_difference) ** 2)


def decide(
    scores: Mapping[str, NDArray[np.float64]],
    arm_cosines: Mapping[str, float],
    *,
    min_difference: float,
    max_arm_cosine: float,
    seed: int,
    missing: Mapping[str, str],
) -> dict[str, Any]:
    """Return the verdict record (JSON-ready; what is not known is None, never 0).

    ``scores`` maps an arm to its concept score per prompt, ``arm_cosines`` ``"coarse~multi"``
    to the cosine of two arms' vectors, ``missing`` an arm that could not be built to the reason.
    ``random`` in ``scores`` adds the contrast multi − random, which does not decide.
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
        "n": max((len(values) for values in scores.values()), default=0),
        "n_needed": needed,
        "min_difference": min_difference,
        "max_arm_cosine": max_arm_cosine,
        "arm_cosines": dict(sorted(arm_cosines.items())),
        "contrasts": [_record(contrast) for contrast in contrasts],
        "missing": dict(sorted(missing.items())),
    }


def _contrasts(scores: Mapping[str, NDArray[np.float64]], seed: int) -> list[Contrast]:
    pairs = (*PRIMARY, ("multi", "random"))
    return [
        paired_contrast(f"{a}-{b}", scores[a], scores[b], seed)
        for a, b in pairs
        if a in scores and b in scores
    ]


def _untestable(
    scores: Mapping[str, NDArray[np.float64]],
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
    numbers = ", ".join(
        f"{c.contrast} {c.estimate:+.3f} [{c.low:+.3f}, {c.high:+.3f}]" for c in primary
    )
    seen = f"{numbers} over {binding.n} openings"
    if all(c.low > 0 for c in primary):
        return "Supported", f"multi beats coarse and fine: {seen}"
    if any(c.high < 0 for c in primary):
        return "Refuted", f"multi is worse than a single resolution: {seen}"
    if all(-min_difference <= c.low and c.high <= min_difference for c in primary):
        return "NoPracticalDifference", f"both intervals lie within ±{min_difference:g}: {seen}"
    return "Inconclusive", f"the intervals allow both answers: {seen}"


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
        text += f", which {binding.n} openings offer already: the difference itself is near zero"
    return text


def _record(contrast: Contrast) -> dict[str, Any]:
    return {**asdict(contrast), "sd": None if math.isnan(contrast.sd) else contrast.sd}
