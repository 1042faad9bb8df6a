"""Stage *scores*: texts in, numbers out."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np

from loopscope.specs.artifacts.scores import (
    ANSWER_COLUMNS,
    JUDGE_ANSWERS,
    OUTCOME,
    OUTCOME_SCORES,
    OutcomeRecord,
)
from loopscope.specs.outcomes import OF_TEXTS
from loopscope.specs.payloads.scores import ScoresMetrics, ScoresPayload
from loopscope.worker.context import StageContext
from loopscope.worker.stages.scores.measures import MEASURES
from loopscope.worker.stages.scores.scored_texts import texts_of
from loopscope.worker.stages.tables import write_document, write_table


def run(payload: ScoresPayload, context: StageContext, out: Path) -> ScoresMetrics:
    """Write the numbers of every text, and the answers of a judge.

    Raises TerminalFailure ``NotInstalled``, ``JudgeNotAllowed``, ``JudgeRefused``,
    ``JudgeTooDear``; TransientFailure ``JudgeUnavailable``.
    """
    name = payload["outcome"]
    steered = context.artifact("steering", payload["steered"]["digest"])
    texts = texts_of(payload, steered)
    measured = MEASURES[name](texts, payload, context)
    columns = [column.name for column in OF_TEXTS[name].columns]
    places = [text.place for text in texts]
    write_table(
        out,
        OUTCOME_SCORES,
        {
            "prompt_id": [place.prompt_id for _ in columns for place in places],
            "arm": [place.arm for _ in columns for place in places],
            "strength": [place.strength for _ in columns for place in places],
            "sample": np.array([place.sample for _ in columns for place in places], dtype=np.int32),
            "outcome": [column for column in columns for _ in places],
            "value": [value for column in columns for value in measured.columns[column]],
        },
    )
    if measured.judge is not None:
        rows = [asdict(answer) for answer in measured.answers]
        found = {column.name: [row[column.name] for row in rows] for column in ANSWER_COLUMNS}
        write_table(out, JUDGE_ANSWERS, found)
    unknown = sum(math.isnan(value) for value in measured.columns[columns[0]])
    different = len({text.text for text in texts})
    record: OutcomeRecord = {
        "outcome": name,
        "texts": len(texts),
        "different_texts": different,
        "unknown": unknown,
        "model": measured.model,
        "judge": measured.judge,
    }
    write_document(out, OUTCOME, record)
    return {
        "outcome": name, "texts": len(texts), "different_texts": different, "unknown": unknown,
    }  # fmt: skip
