"""Other outcomes of the same texts: each that says of a text whether it is about the concept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from loopscope.numerics.verdict.outcomes import against_ratings, unknown_doubt
from loopscope.specs.outcomes import OF_TEXTS
from loopscope.views.sensitivity.look import Look, judged
from loopscope.views.sensitivity.stored_run import StoredRun

OF_SCORES: Mapping[str, str] = {
    "concept_unpromoted": "a word that begins with no token that the arm promotes most",
    "targetedness": "concept less siblings",
    "probe": "a probe at another layer calls the text about the concept",
}
"""Outcomes of ``steering_scores.parquet`` on the scale of the concept score, in which a smallest
practical difference means the same."""
RATING = "rating"


def outcome_looks(run: StoredRun, primary: str | None = None) -> Iterator[Look]:
    """Yield the verdict on each other outcome that is there; ``primary`` is a scoring's own."""
    for name, about in OF_SCORES.items():
        values = run.cells.outcomes.get(name)
        if values is not None and not np.isnan(values).all():
            found, unknown = run.of_outcome(name)
            doubt = unknown_doubt(unknown, values.size)
            yield judged("outcome", name.replace("_", " "), found, about, doubt)
    for name, outcome in OF_TEXTS.items():
        if outcome.leads in run.cells.outcomes:
            note = "the primary one of scoring" if name == primary else "of scoring"
            yield _of_texts(run, name, outcome.leads, note)


def _of_texts(run: StoredRun, name: str, column: str, note: str) -> Look:
    found, unknown = run.of_outcome(column)
    return judged("outcome", name, found, note, _doubt(run, name, unknown))


def _doubt(run: StoredRun, name: str, unknown: int) -> str:
    """Return why an outcome may not answer, by the rules of a scoring; empty where it may."""
    outcomes, outcome = run.cells.outcomes, OF_TEXTS[name]
    if outcome.validated:
        values = outcomes[outcome.columns[0].name]
        return against_ratings(values, outcomes.get(RATING, np.full_like(values, np.nan))).doubt
    return unknown_doubt(unknown, outcomes[outcome.leads].size) if name == "judge" else ""
