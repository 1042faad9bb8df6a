"""Necessity: whether a concept loses more by its own latents than by matched ones.

Steering shows that a direction suffices; only ablation shows that the model uses it. The unit is
the prompt, or the group of prompts that belong together, as everywhere. Without torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.statistics.multiple_tests import holm
from loopscope.numerics.statistics.paired import Contrast, paired_contrast, without_gaps

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
LEVEL = 0.05
NOTHING = "nothing"
"""What a loss is compared with first: the model as it is."""

Answer = Literal["used", "lost no more than matched", "no loss shown", "not compared"]


@dataclass(frozen=True)
class LossContrast:
    """What a part loses beyond ``against``: nothing, or a control's mean over its draws.

    ``p`` is one-sided: interval and sign-flip test must agree. ``p_holm`` is corrected over all
    that were tested together. ``between_draws`` is the standard error of the control's mean over
    its draws, which the interval carries: None without draws to tell.
    """

    part: str
    against: str
    contrast: Contrast
    p: float
    p_holm: float
    between_draws: float | None


def loss_contrasts(
    losses: Mapping[str, Floats],
    controls: Mapping[tuple[str, str], Floats],
    group: Integers | None,
) -> list[LossContrast]:
    """Return each part against nothing and against each of its controls, corrected together.

    ``losses`` maps a part to its losses [prompts], ``controls`` part and control to [draws,
    prompts], both in nats. Raises ValueError without a prompt.
    """
    found: list[tuple[str, str, Contrast, float | None]] = []
    for part, own in losses.items():
        nothing = paired_contrast("loss", own, np.zeros(len(own)), group=group, span=None)
        found.append((part, NOTHING, without_gaps(nothing), None))
        for (of_part, control), drawn in controls.items():
            if of_part != part:
                continue
            error = _between(drawn)
            against = paired_contrast(
                "loss", own, drawn.mean(axis=0), group=group, shared_sd=error or 0.0, span=None
            )
            found.append((part, control, without_gaps(against), error))
    p = [contrast.p_gain for _, _, contrast, _ in found]
    corrected = holm(np.array(p))
    return [
        LossContrast(part, against, contrast, own, float(adjusted), error)
        for (part, against, contrast, error), own, adjusted in zip(found, p, corrected, strict=True)
    ]


def _between(drawn: Floats) -> float | None:
    """Return the standard error of the mean over draws: they are a sample, too."""
    if len(drawn) < 2:
        return None
    return float(drawn.mean(axis=1).std(ddof=1) / math.sqrt(len(drawn)))


def answer(part: str, contrasts: list[LossContrast]) -> Answer:
    """Return what is said of a part.

    *used*: it surely loses something, and more than each control. No loss shown is no proof that
    the model does not use it: other latents may carry the concept as well.
    """
    own = {one.against: one.p_holm <= LEVEL for one in contrasts if one.part == part}
    if not own[NOTHING]:
        return "no loss shown"
    controls = [shown for against, shown in own.items() if against != NOTHING]
    if not controls:
        return "not compared"
    return "used" if all(controls) else "lost no more than matched"
