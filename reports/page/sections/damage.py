"""The section of damage: what each arm takes from the model beside what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loopscope.reports.text_table import TextTable
from loopscope.specs.artifacts.damage import DAMAGE
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.numbers import MISSING, percent, signed

LEVEL = 0.05


@dataclass(frozen=True)
class DamageSection:
    """A damage: a row an arm and strength, a column a measure; ``holds`` in words."""

    stage: StageView
    arms: TextTable
    holds: str


def damage(view: ExperimentView) -> DamageSection | None:
    """Return what the arms do beside what they are for; None where the spec does not ask."""
    if "damage" not in view.experiment.spec:
        return None
    stage = view.stage("damage")
    if not stage.available:
        return DamageSection(stage, TextTable([], []), "")
    rows = stage.table(DAMAGE).to_dict("records")
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    cells = {(row["arm"], row["strength"], row["measure"]): row for row in rows}
    arms = [
        [arm, f"{strength:g}", *(_cell(cells.get((arm, strength, name))) for name in measures)]
        for arm, strength in dict.fromkeys((row["arm"], row["strength"]) for row in rows)
    ]
    titles = ["arm", "strength", *(name.replace("_", " ") for name in measures)]
    return DamageSection(stage, TextTable(titles, arms), _holds(stage))


def _cell(row: Mapping[Any, Any] | None) -> str:
    """Return a share, with its change where that was tested and is sure."""
    if row is None:
        return MISSING
    share = percent(row["share"], 0)
    if not row["p_holm"] <= LEVEL:
        return share
    return f"{share} ({signed(row['change'], 2)})"


def _holds(stage: StageView) -> str:
    holds, limit = stage.metrics["holds"], stage.spec.get("maxLoss")
    if holds is None or limit is None:
        return ""
    words = "holds" if holds else "does not hold"
    return (
        f"The verdict {words} under the declared limit: multi may lose less than {percent(limit)} "
        "of its accuracy on ordinary text and on the questions, with the whole 95 % interval."
    )
