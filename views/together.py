"""Verdicts of several experiments as one table, corrected and pooled."""

from __future__ import annotations

import pandas

from loopscope.state.records import ObjectRecord
from loopscope.views.several import several


def verdicts_together(records: list[ObjectRecord]) -> pandas.DataFrame:
    """Return one row an experiment, and the last for all; LookupError for fewer than two."""
    found = several(records)
    if found is None:
        raise LookupError("fewer than two experiments with a steering part: nothing to correct")
    rows = [
        {
            "name": row.name,
            "gate": row.gate or None,
            "verdict": row.word or None,
            "corrected": row.corrected or None,
            "p": row.p,
            "contrast": row.contrast or None,
            "estimate": row.estimate,
            "low": row.low,
            "high": row.high,
        }
        for row in found.rows
    ]
    if found.pooled is not None:
        contrast, mean = min(found.pooled.primary.items(), key=lambda item: item[1].estimate)
        pooled = {"name": "pooled", "verdict": found.pooled.word, "contrast": contrast}
        rows.append(pooled | {"estimate": mean.estimate, "low": mean.low, "high": mean.high})
    return pandas.DataFrame(rows).set_index("name")
