"""The steering sections: arms, contrasts, next tokens and samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas
from markupsafe import Markup

from loopscope.reports.page import fairness
from loopscope.reports.page.figures.steering import concept_against_kl
from loopscope.reports.page.samples import OpeningSamples, samples_by_opening
from loopscope.reports.page.sections.missing import Missing
from loopscope.reports.page.shift_table import OpeningShift, shifts_by_opening
from loopscope.reports.page.story import assay_sentence
from loopscope.reports.text_table import TextTable
from loopscope.specs.artifacts.capture import NORMS
from loopscope.specs.artifacts.steering import ARMS, VERDICT
from loopscope.specs.artifacts.verdict import ContrastRecord, Verdict
from loopscope.specs.spec_json import SteeredPositionsJson
from loopscope.views.blinding import HEAD as LETTERS
from loopscope.views.blinding import letter_rows
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.numbers import (
    MINUS,
    MISSING,
    count,
    decimal,
    p_value,
    signed,
    signed_interval,
)
from loopscope.views.stopping import HEAD, look_rows, stopping_sentence
from loopscope.views.trace import cut

OUTCOMES = (
    *ARMS.named("probe", "target_latent", "sibling", "targetedness"),
    "collateral_coarse",
    "collateral_fine",
    *ARMS.named("fixed_text_change_coarse", "fixed_text_change_fine", "distinct_2"),
)
"""Shown where they are there; the two in the middle only in older results."""


@dataclass(frozen=True)
class StrengthUnit:
    """The unit of the strengths; ``size`` in model units, None where it has none or is unknown."""

    name: str
    words: str
    size: float | None


@dataclass(frozen=True)
class SteeringSection:
    """A steering run; ``arms`` have the columns of ``arms.parquet``.

    What an older run did not measure is an empty table or text.
    """

    stage: StageView
    rules: Mapping[str, Any]
    arms: list[dict[str, object]]
    verdict: Verdict
    assay: str
    stopping: str
    looks: TextTable
    contrasts: TextTable
    intact: TextTable
    secondary: TextTable
    budgets: TextTable
    budget_texts: int | None
    beside_prompt: TextTable
    placebo: str
    figure: Markup
    outcomes: TextTable
    shifts: list[OpeningShift]
    shifts_hidden: int
    openings: list[OpeningSamples]
    samples_hidden: int
    unit: StrengthUnit
    clamps: bool
    place: str
    tokens: str
    steers_generated: bool
    """Whether each generated token of a steered arm is drawn after a steered one."""
    steers_opening: bool
    """Whether all of an opening is steered but its first token."""
    no_tokens: str
    """Why no token is marked by itself; empty where each is."""


@dataclass(frozen=True)
class Blinded(Missing):
    """A steering whose arms may not be named yet, under their letters."""

    letters: TextTable


def steering(view: ExperimentView) -> SteeringSection | Missing:
    """Return the arms' table, contrasts, picture and samples."""
    stage = view.stage("steering")
    if not stage.available:
        letters = TextTable(LETTERS, list(letter_rows(view.blinded)))
        return Blinded(stage, letters) if view.blinded else Missing(stage)
    arms = stage.table(ARMS)
    verdict = stage.document(VERDICT)
    budget = verdict.get("budget")
    tokens = cut(view)
    openings, hidden = samples_by_opening(stage, tokens)
    shifts, shifts_hidden = shifts_by_opening(stage)
    return SteeringSection(
        stage=stage,
        rules=stage.spec,
        arms=arms.to_dict("records"),
        verdict=verdict,
        assay=assay_sentence(verdict),
        stopping=stopping_sentence(verdict),
        looks=TextTable(HEAD, list(look_rows(verdict))),
        contrasts=contrast_table(verdict.get("contrasts")),
        intact=contrast_table(verdict.get("intact")),
        secondary=contrast_table(verdict.get("secondary")),
        budgets=fairness.budget_errors(verdict),
        budget_texts=budget.get("texts") if budget else None,
        beside_prompt=fairness.beside_prompt(verdict),
        placebo=fairness.placebo_sentence(verdict),
        figure=concept_against_kl(arms),
        outcomes=_outcomes(arms),
        shifts=shifts,
        shifts_hidden=shifts_hidden,
        openings=openings,
        samples_hidden=hidden,
        unit=_strength_unit(view, stage),
        clamps=stage.spec.get("method") == "clamp",
        place="the write hook" if "writeHook" in view.experiment.spec else "the hook",
        tokens=_steered_tokens(stage.spec.get("positions", "all")),
        steers_generated=stage.spec.get("positions", "all") in ("all", "generated", "assistant"),
        steers_opening=stage.spec.get("positions", "all") == "all",
        no_tokens=tokens.problem,
    )


_TOKENS = {
    "all": "",
    "opening": "all tokens of an opening but the first and none that is generated",
    "generated": "the tokens that a generated one is drawn after, from the last of the opening on",
    "assistant": "the tokens that decide the assistant's words, from the last of the template on",
    "last": "the last token of an opening and no other",
    "lastContent": "the last token of an opening's own text and no other",
    "afterTemplate": "the last token of the template and no other",
}


def _steered_tokens(positions: SteeredPositionsJson) -> str:
    """Return which tokens are steered, in words; empty where all are."""
    if isinstance(positions, str):
        return _TOKENS[positions]
    if "token" in positions:
        return f"the token that ends {positions['token']!r} in an opening, and no other"
    return f"the token with the index {positions['index']} of an opening, and no other"


_CONTRAST: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "outcome": ("outcome", lambda entry: str(entry["outcome"]).replace("_", " ")),
    "contrast": ("contrast", lambda entry: entry["contrast"].replace("-", f" {MINUS} ", 1)),
    "estimate": ("estimate", lambda entry: signed(entry["estimate"], 3)),
    "low": ("95 % interval", lambda entry: signed_interval(entry["low"], entry["high"], 3)),
    "n": ("n", lambda entry: count(entry["n"])),
    "p_holm": ("p (Holm)", lambda entry: p_value(entry["p_holm"])),
    "p_two_sided": ("p", lambda entry: p_value(entry["p_two_sided"])),
}


def contrast_table(entries: Sequence[ContrastRecord] | None) -> TextTable:
    """Return what of the contrasts fits a page, as columns and rows of text; verdict.json has all.

    A p that was corrected stands in place of the plain one.
    """
    entries = entries or []
    given = {name for entry in entries for name in entry}
    shown = [name for name in _CONTRAST if name in given]
    if "p_holm" in shown and "p_two_sided" in shown:
        shown.remove("p_two_sided")
    rows = [
        [_CONTRAST[name][1](entry) if name in entry else MISSING for name in shown]
        for entry in entries
    ]
    return TextTable([_CONTRAST[name][0] for name in shown], rows)


def _outcomes(arms: pandas.DataFrame) -> TextTable:
    """Return the arms' further outcomes as columns and rows of text."""
    shown = ("arm", "strength", *(name for name in OUTCOMES if name in arms))
    rows = [[_cell(row[name]) for name in shown] for row in arms.to_dict("records")]
    return TextTable([name.replace("_", " ") for name in shown], rows)


def _cell(value: object) -> str:
    return decimal(value, 3) if value is None or isinstance(value, float) else str(value)


def _strength_unit(view: ExperimentView, stage: StageView) -> StrengthUnit:
    """Return the unit of the strengths in words, with its size where the capture is at hand."""
    unit = stage.spec["strengthUnit"]
    capture = view.stage("capture")
    norms = capture.document(NORMS) if capture.available else None
    words, size = {
        "nextTokenKl": ("nats of next-token KL on neutral text", None),
        "fluencyLoss": ("nats per token by which neutral text gets less likely", None),
        "centredResidualNorm": (
            "median norm of (h minus mean h)",
            norms and norms.get("median_centred_norm"),
        ),
        "residualNorm": ("median norm of h", norms and norms.get("median_norm")),
        "absolute": ("1", None),
    }[unit]
    return StrengthUnit(unit, words, size)
