"""Damage: shares of questions, of openings moved and of texts about other things, paired."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray

from loopscope.numerics.statistics.paired import paired_contrast, rate_interval
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.reports.verification.steering import run_of
from loopscope.specs.artifacts.damage import CHOICES, DAMAGE
from loopscope.specs.artifacts.steering import SCORES

SHARES = "damage: shares of questions and openings, and their changes"
NONE, CHOICE = "none", "choices"
Floats = NDArray[np.float64]
Cells = dict[tuple[str, float], Floats]


def check_damage(bundle: OpenBundle, findings: Findings) -> None:
    """Compute the shares of questions and of moved openings again, with their changes."""
    damage, choices, scores = bundle.table(DAMAGE), bundle.table(CHOICES), bundle.table(SCORES)
    if damage is None or choices is None or scores is None:
        return
    with findings.part(SHARES, DAMAGE.name):
        measures = _of_choices(choices)
        run = run_of(bundle, scores)
        concept = {
            cell: values.mean(axis=1)
            for cell, values in zip(run.cells, run.outcomes["concept"], strict=True)
        }
        measures |= _moved(concept)
        rows = damage[damage["measure"].isin(list(measures))]
        findings.same(SHARES, "rows", len(rows), sum(len(cells) for cells in measures.values()))
        for row in rows.to_dict("records"):
            group = run.group if row["measure"].endswith("_way") else None
            _check_row(row, measures[row["measure"]], group, findings)
        _check_status(bundle, damage, findings)
    why = "it needs the model, or the texts that were read"
    findings.leave_out("damage on ordinary text and other concepts, and p after Holm", why)


def _of_choices(choices: pandas.DataFrame) -> dict[str, Cells]:
    """Return what was answered rightly [items] by measure and cell."""
    right = choices.assign(is_right=(choices["chosen"] == choices["right"]).astype(float))
    found: dict[str, Cells] = {}
    for (arm, strength), own in right.sort_values("item").groupby(["arm", "strength"], sort=False):
        found.setdefault(CHOICE, {})[arm, strength] = own["is_right"].to_numpy()
        for family, rows in own.groupby("family", sort=False):
            found.setdefault(str(family), {})[arm, strength] = rows["is_right"].to_numpy()
    return found


def _moved(concept: Cells) -> dict[str, Cells]:
    """Return which openings have a lower, and a higher score than unsteered."""
    least = next((values for (arm, _), values in concept.items() if arm == NONE), None)
    if least is None:
        return {}
    others = {cell: values for cell, values in concept.items() if cell[0] != NONE}
    return {
        "wrong_way": {cell: (values < least).astype(float) for cell, values in others.items()},
        "right_way": {cell: (values > least).astype(float) for cell, values in others.items()},
    }


def _check_row(
    row: dict[Any, Any], cells: Cells, group: NDArray[np.int64] | None, findings: Findings
) -> None:
    values = cells[row["arm"], row["strength"]]
    low, high = rate_interval(values[:, None], group=group)
    computed = {"n": len(values), "share": values.mean(), "low": low, "high": high}
    before = next((own for (arm, _), own in cells.items() if arm == NONE), None)
    if before is not None and row["arm"] != NONE:
        change = paired_contrast(row["measure"], values, before, group=group)
        computed |= {
            "change": change.estimate, "change_low": change.low, "change_high": change.high
        }  # fmt: skip
    place = f"{row['arm']} at {row['strength']:g}, {row['measure']}"
    findings.same(SHARES, place, {name: row[name] for name in computed}, computed)


def _check_status(bundle: OpenBundle, damage: pandas.DataFrame, findings: Findings) -> None:
    """Compare the status with the table: what multi loses at most, and what unsteered text has."""
    stated = bundle.manifest("damage")["metrics"]
    for measure, name, loss in (
        ("next_token", "next_token", "multi_next_token_loss"),
        (CHOICE, "choices", "multi_choices_loss"),
    ):
        own = damage[damage["measure"] == measure]
        unsteered = own[own["arm"] == NONE]["share"].tolist()
        lost = (-own[own["arm"] == "multi"]["change"]).dropna().tolist()
        findings.same(SHARES, name, stated[name], unsteered[0] if unsteered else None)
        findings.same(SHARES, loss, stated[loss], max(lost, default=None))
