"""Agreement of outcomes with the word list, and with people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.statistics.agreement import cohen_kappa
from loopscope.numerics.verdict.cells import ScoredCells
from loopscope.numerics.verdict.outcomes import separation
from loopscope.specs.artifacts.scoring import AgreementRecord
from loopscope.specs.outcomes import CONCEPT, OF_TEXTS
from loopscope.specs.payloads.steering import Opening

Floats = NDArray[np.float64]
RATING = "rating"
BOTH_SORTS = (CONCEPT, *(one.leads for one in OF_TEXTS.values() if one.leads))
"""Outcomes that say of a text whether it is about the concept, by more than a half or not."""
RANKED = tuple(one.columns[0].name for one in OF_TEXTS.values() if one.validated)
"""Outcomes that rank texts by how much they are about it."""


def agreements(cells: ScoredCells, openings: Sequence[Opening]) -> list[AgreementRecord]:
    """Return the agreement of each outcome that is there with people's ratings and the words."""
    ids = np.array([opening["id"] for opening in openings])
    there = [name for name in (*BOTH_SORTS, *RANKED) if name in cells.outcomes]
    others = [name for name in (RATING, CONCEPT) if name in there]
    return [
        record
        for other in others
        for name in there
        if name != other and (name, other) != (RATING, CONCEPT)
        for record in _agreement(cells, name, other, ids)
    ]


def _agreement(
    cells: ScoredCells, name: str, other: str, ids: NDArray[np.str_]
) -> Iterator[AgreementRecord]:
    values, said = cells.outcomes[name], cells.outcomes[other]
    both = ~np.isnan(values) & ~np.isnan(said)
    units = np.broadcast_to(ids[None, :, None], values.shape)[both].tolist()
    if not units:
        return
    about = said[both] > 0.5
    record: AgreementRecord = {
        "outcome": name,
        "other": other,
        "texts": len(units),
        "openings": len(set(units)),
        "observed": None,
        "kappa": None,
        "auroc": None,
        "low": None,
        "high": None,
    }
    if name in RANKED:
        ranked = separation(values[both].tolist(), about.tolist(), units)
        record["auroc"], low, high = _known(ranked.auroc), ranked.low, ranked.high
    else:
        kappa = cohen_kappa(
            (values[both] > 0.5).astype(int).tolist(), about.astype(int).tolist(), units
        )
        record["observed"], record["kappa"] = kappa.observed, _known(kappa.kappa)
        low, high = kappa.low, kappa.high
    record["low"], record["high"] = _known(low), _known(high)
    yield record


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
