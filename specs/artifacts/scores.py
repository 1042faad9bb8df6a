"""Files of scores: the numbers that one outcome makes of texts, and the answers behind them."""

from __future__ import annotations

from typing import TypedDict

from loopscope.specs.artifact_files import Column, Document, Table
from loopscope.specs.artifacts.steering import SAMPLES

TEXT_KEYS = tuple(SAMPLES.columns[:4])
"""What names a text: opening, arm, strength, sample."""
ANSWER_COLUMNS = (
    Column("question", "text", "sha256 of the model's name and of all that was sent"),
    Column("text_sha256", "text", "sha256 of the text that was asked about"),
    Column("order", "text", "`yes-no` or `no-yes`: what A and B stood for"),
    Column("answer", "text", "the answer as it came, without its ends of white space"),
    Column("said", "text", "`yes`, `no`, or empty where the answer could not be read"),
    Column("served", "text", "the model that the endpoint says it used; may be empty"),
    Column("input_tokens", "int64", "tokens that were sent, as the endpoint says; else 0"),
    Column("output_tokens", "int64", "tokens of the answer, as the endpoint says; else 0"),
)


class JudgeRecord(TypedDict):
    """What a judge was asked and how readable and steady its answers are."""

    model: str
    served: list[str]
    prompt: str
    question: str
    answers: int
    unreadable: int
    both_orders: int
    orders_differ: int
    first_said: int
    input_tokens: int
    output_tokens: int


class OutcomeRecord(TypedDict):
    """``outcome.json``: what was measured, of how many texts, by what."""

    outcome: str
    texts: int
    different_texts: int
    unknown: int
    model: str | None
    judge: JudgeRecord | None


OUTCOME_SCORES = Table(
    name="outcome_scores.parquet",
    about="what the outcome makes of each text, one row a text and column",
    columns=(
        *TEXT_KEYS,
        Column("outcome", "text", "name of the number, as in the table of outcomes"),
        Column("value", "float64", "the number; NaN where it is not known"),
    ),
)
JUDGE_ANSWERS = Table(
    name="judge_answers.parquet",
    about="the answers of a judge, each different text in both orders",
    where="of the outcome `judge`",
    columns=ANSWER_COLUMNS,
)
OUTCOME = Document(
    name="outcome.json", about="what was measured, and how readable it is", shape=OutcomeRecord
)

FILES = (OUTCOME_SCORES, JUDGE_ANSWERS, OUTCOME)
