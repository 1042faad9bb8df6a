"""The measures of outcomes, under the names that they have in ``loopscope.specs.outcomes``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from loopscope.worker.stages.steering.cells import Row
from loopscope.worker.stages.steering.outcomes.lexicon import word_outcomes
from loopscope.worker.stages.steering.run import SteeringRun
from loopscope.worker.stages.steering.scored import Scored

Measure = Callable[[Scored, SteeringRun], dict[str, dict[Row, float]]]
"""Returns columns, each with the number of every row, NaN where unknown.

What takes long, or would come out otherwise the next time, is kept by ``run.kept``: after a stop it
is read and not made again.
"""

MEASURES: Mapping[str, Measure] = {"lexicon": lambda scored, _: word_outcomes(scored)}


def measured(scored: Scored, run: SteeringRun) -> dict[str, dict[Row, float]]:
    """Return the columns of every outcome that the run's spec asked for, in the table's order."""
    found: dict[str, dict[Row, float]] = {}
    for name, measure in MEASURES.items():
        if name in run.payload:
            found |= measure(scored, run)
    return found
