"""The section of further outcomes: the one that answers, and all that stand beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas

from loopscope.reports.page.sections.steering import contrast_table
from loopscope.reports.text_table import TextTable
from loopscope.specs.artifacts.scores import JudgeRecord
from loopscope.specs.artifacts.scoring import OUTCOME_ARMS, SCORING, AgreementRecord, Scoring
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.numbers import count, decimal, percent, signed_interval

AGREEMENT = ("outcome", "with", "texts", "openings", "agree", "kappa", "AUROC", "95 % interval")


@dataclass(frozen=True)
class OutcomesSection:
    """A scoring; tables are empty where there is nothing to show."""

    stage: StageView
    found: Scoring | None
    contrasts: TextTable
    secondary: TextTable
    arms: TextTable
    agreement: TextTable
    sentences: list[str]


def outcomes(view: ExperimentView) -> OutcomesSection | None:
    """Return what other outcomes say of the texts; None where the spec asks for none."""
    if "scoring" not in view.experiment.spec:
        return None
    stage = view.stage("scoring")
    empty = TextTable([], [])
    if not stage.available:
        return OutcomesSection(stage, None, empty, empty, empty, empty, [])
    found = stage.document(SCORING)
    return OutcomesSection(
        stage,
        found,
        contrast_table(found["contrasts"]),
        contrast_table(found["secondary"]),
        _arms(stage.table(OUTCOME_ARMS)),
        TextTable([*AGREEMENT], [_agreement(one) for one in found["agreement"]]),
        [*_sentences(found)],
    )


def _arms(table: pandas.DataFrame) -> TextTable:
    """Return the means of all outcomes, one row an arm and strength."""
    names = list(dict.fromkeys(table["outcome"]))
    cells = table.set_index(["arm", "strength", "outcome"])["mean"]
    rows = [
        [str(arm), f"{strength:g}", *(decimal(cells[arm, strength, name], 3) for name in names)]
        for arm, strength in dict.fromkeys(zip(table["arm"], table["strength"], strict=True))
    ]
    return TextTable(["arm", "strength", *(name.replace("_", " ") for name in names)], rows)


def _agreement(one: AgreementRecord) -> list[str]:
    return [
        one["outcome"].replace("_", " "),
        one["other"],
        count(one["texts"]),
        count(one["openings"]),
        percent(one["observed"], 0),
        decimal(one["kappa"], 3),
        decimal(one["auroc"], 3),
        signed_interval(one["low"], one["high"], 3),
    ]


def _sentences(found: Scoring) -> Iterator[str]:
    for outcome in found["outcomes"]:
        if outcome["model"] is not None:
            yield f"{outcome['outcome']} is measured by {outcome['model']}."
        if outcome["judge"] is not None:
            yield judge_sentence(outcome["judge"])
        if outcome["unknown"]:
            unknown, texts = count(outcome["unknown"]), count(outcome["texts"])
            yield f"{outcome['outcome']} has no number of {unknown} of {texts} texts."


def judge_sentence(judge: JudgeRecord) -> str:
    """Return how readable a judge's answers are, and how far they follow their order."""
    words = (
        f"The judge was asked {judge['question']!r} in either order of the answers: "
        f"{count(judge['answers'])} answers, {count(judge['unreadable'])} of them unreadable"
    )
    if not judge["both_orders"]:
        return f"{words}."
    differ = judge["orders_differ"] / judge["both_orders"]
    first = judge["first_said"] / (2 * judge["both_orders"])
    return (
        f"{words}; the two orders differ on {percent(differ, 0)} of the texts, and "
        f"{percent(first, 0)} of the answers name what stood first (half, where order is nothing)."
    )
