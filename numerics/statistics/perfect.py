"""The best that a selection could find: the p of a perfect latent. Arithmetic for both planes.

A perfect latent fires on every target prompt, each time with another value, and on no neutral one.
"""

from __future__ import annotations

import math

FIRING_PROMPTS_MIN = 5
"""Latents firing on fewer prompts are not tested: their p and q are NaN."""


def perfect_p_value(targets: int, neutrals: int) -> float:
    """Return the smallest p that these numbers of prompts allow: that of a perfect latent.

    The two-sided asymptotic Mann-Whitney test with tie and continuity correction; all neutral
    prompts are one tie. Where the prompts are too few for a test the answer is 1.
    """
    if targets < FIRING_PROMPTS_MIN or neutrals < 1:
        return 1.0
    prompts = targets + neutrals
    ties = (neutrals**3 - neutrals) / (prompts * (prompts - 1))
    deviation = math.sqrt(targets * neutrals / 12 * (prompts + 1 - ties))
    z = (targets * neutrals / 2 - 0.5) / deviation
    return min(1.0, math.erfc(z / math.sqrt(2)))


def perfect_latents_needed(p_value: float, tested: int, q_max: float) -> int:
    """Return how many perfect latents pass ``q_max`` of ``tested`` ones together, none alone.

    Benjamini and Hochberg 1995: k latents with the same p pass if p ≤ k q / m. With a ``q_max`` of
    0 not even all of them do: the answer is one more than there are.
    """
    if q_max >= 1:
        return 1
    return max(1, math.ceil(p_value * tested / q_max)) if q_max else tested + 1
