"""A contrast over those openings of which both arms have a score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.statistics.paired import Contrast, paired_contrast


def contrast_over_known(
    name: str,
    scores: Mapping[str, NDArray[np.float64]],
    a: str,
    b: str,
    group: NDArray[np.int64] | None,
    *,
    span: float | None,
    shared_sd: float = 0.0,
) -> Contrast | None:
    """Return the contrast over the openings where both arms are known; None without any."""
    if a not in scores or b not in scores:
        return None
    known = ~(np.isnan(scores[a]) | np.isnan(scores[b]))
    if not known.any():
        return None
    kept = None if group is None else group[known]
    first, second = scores[a][known], scores[b][known]
    return paired_contrast(name, first, second, group=kept, span=span, shared_sd=shared_sd)
