"""Files of a scoring: every outcome of every text, arms, agreement, and the verdict."""

from __future__ import annotations

from typing import TypedDict

from loopscope.specs.artifact_files import Column, Document, Table
from loopscope.specs.artifacts.scores import ANSWER_COLUMNS, TEXT_KEYS, OutcomeRecord
from loopscope.specs.artifacts.verdict import Decision


class AgreementRecord(TypedDict):
    """How far two outcomes agree on texts that both know: Cohen's kappa, or an AUROC.

    ``auroc`` is how well ``outcome`` tells apart what ``other`` says, where it is a number that can
    be ranked; ``kappa`` where both say yes or no.
    """

    outcome: str
    other: str
    texts: int
    openings: int
    observed: float | None
    kappa: float | None
    auroc: float | None
    low: float | None
    high: float | None


class ValidationRecord(TypedDict):
    """Whether people's ratings of these texts let the primary outcome answer."""

    outcome: str
    auroc: float | None
    low: float | None
    high: float | None
    texts: int
    openings: list[int]
    needed_low: float
    needed_openings: int
    doubt: str | None


class Scoring(Decision):
    """``scoring.json``: the verdict on the primary outcome, with all that was looked at."""

    primary: str
    outcomes: list[OutcomeRecord]
    agreement: list[AgreementRecord]
    validation: ValidationRecord | None


TEXT_OUTCOMES = Table(
    name="text_outcomes.parquet",
    about="every further outcome of every text, one row a text and outcome",
    bundled="scoring",
    columns=(
        *TEXT_KEYS,
        Column("outcome", "text", "name of the outcome"),
        Column("value", "float64", "the number; NaN where it is not known"),
    ),
)
OUTCOME_ARMS = Table(
    name="outcome_arms.parquet",
    about="one row an arm, strength and outcome",
    bundled="scoring",
    columns=(
        *TEXT_KEYS[1:3],
        Column("outcome", "text", "name of the outcome"),
        Column("n", "int64", "texts with a number", "texts"),
        Column("mean", "float64", "mean over these texts; NaN without any"),
    ),
)
ANSWERS_OF_THE_JUDGE = Table(
    name="judged.parquet",
    about="the answers of a judge, each different text in both orders",
    where="with `judge`",
    bundled="scoring",
    columns=ANSWER_COLUMNS,
)
SCORING = Document(
    name="scoring.json",
    about="the verdict on the primary outcome, and every other outcome beside it",
    bundled="scoring",
    shape=Scoring,
)

FILES = (TEXT_OUTCOMES, OUTCOME_ARMS, ANSWERS_OF_THE_JUDGE, SCORING)
