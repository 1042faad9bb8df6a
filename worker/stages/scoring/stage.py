"""Stage *scoring*: all outcomes of a steering's texts side by side, and the verdict on one."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from loopscope.numerics.verdict.cells import ScoredCells
from loopscope.numerics.verdict.decision import VerdictRules
from loopscope.numerics.verdict.outcomes import (
    VALID_AUROC,
    VALID_OPENINGS,
    against_ratings,
    decide_on,
    evidence_on,
    unknown_doubt,
)
from loopscope.specs.artifacts.scores import JUDGE_ANSWERS, OUTCOME, OUTCOME_SCORES
from loopscope.specs.artifacts.scoring import (
    ANSWERS_OF_THE_JUDGE,
    OUTCOME_ARMS,
    SCORING,
    TEXT_OUTCOMES,
    Scoring,
    ValidationRecord,
)
from loopscope.specs.artifacts.steering import VERDICT
from loopscope.specs.outcomes import OF_TEXTS, leading_column
from loopscope.specs.payloads.scoring import ScoringMetrics, ScoringPayload
from loopscope.worker.context import StageContext
from loopscope.worker.stages.scoring.agreement import agreements
from loopscope.worker.stages.scoring.cells import cells_of
from loopscope.worker.stages.steering.verdict_record import decision_record
from loopscope.worker.stages.tables import (
    read_document,
    write_document,
    write_table,
)

RATING = "rating"
LEVEL = 0.05


def run(payload: ScoringPayload, context: StageContext, out: Path) -> ScoringMetrics:
    """Write every outcome, the arms' means and the verdict; return the status numbers."""
    steered = context.artifact("steering", payload["steered"]["digest"])
    folders = {
        name: context.artifact("scores", one["digest"]) for name, one in payload["scores"].items()
    }
    further = [folder / OUTCOME_SCORES.name for folder in folders.values()]
    cells = cells_of(steered, payload["openings"], further, payload.get("turns"))
    _write_texts(out, further)
    _write_arms(out, cells, folders)
    for folder in folders.values():
        if (folder / JUDGE_ANSWERS.name).exists():
            shutil.copyfile(folder / JUDGE_ANSWERS.name, out / ANSWERS_OF_THE_JUDGE.name)
    scoring, unknown = _scoring(payload, cells, steered, list(folders.values()))
    write_document(out, SCORING, scoring)
    return _metrics(scoring, unknown)


def _write_texts(out: Path, further: Sequence[Path]) -> None:
    """Write what the outcomes make of the texts, one outcome after the other."""
    tables = [pyarrow.parquet.read_table(path) for path in further]
    together = pyarrow.concat_tables(tables)
    columns = {name: together[name] for name in together.column_names}
    write_table(out, TEXT_OUTCOMES, columns)


def _write_arms(out: Path, cells: ScoredCells, folders: Iterable[str]) -> None:
    names = [column.name for name in folders for column in OF_TEXTS[name].columns]
    rows = [
        (arm, strength, name, cells.outcomes[name][number])
        for number, (arm, strength) in enumerate(cells.cells)
        for name in names
    ]
    known = [values[~np.isnan(values)] for *_, values in rows]
    write_table(
        out,
        OUTCOME_ARMS,
        {
            "arm": [arm for arm, *_ in rows],
            "strength": np.array([strength for _, strength, *_ in rows]),
            "outcome": [name for _, _, name, _ in rows],
            "n": np.array([len(values) for values in known], dtype=np.int64),
            "mean": np.array([values.mean() if len(values) else np.nan for values in known]),
        },
    )


def _scoring(
    payload: ScoringPayload, cells: ScoredCells, steered: Path, folders: Sequence[Path]
) -> tuple[Scoring, int]:
    """Return the verdict on the primary outcome, and how many texts it has no number of."""
    before = read_document(steered, VERDICT)
    primary = payload["primary"]
    column = leading_column(primary)
    evidence, unknown = evidence_on(cells, column, before["arm_cosines"], before["missing"])
    rules = VerdictRules(payload["minDifference"], payload["maxArmCosine"])
    validation = _validation(primary, cells)
    doubt = validation["doubt"] if validation is not None else None
    if primary == "judge":
        doubt = unknown_doubt(unknown, cells.outcomes[column].size)
    decided = decide_on(evidence, rules, primary, doubt)
    scoring: Scoring = {
        **decision_record(evidence, rules, decided),
        "primary": primary,
        "outcomes": [read_document(folder, OUTCOME) for folder in folders],
        "agreement": agreements(cells, payload["openings"]),
        "validation": validation,
    }
    return scoring, unknown


def _validation(primary: str, cells: ScoredCells) -> ValidationRecord | None:
    """Return whether people's ratings let the primary outcome answer; None where none must."""
    outcome = OF_TEXTS.get(primary)
    if outcome is None or not outcome.validated:
        return None
    name = outcome.columns[0].name
    found = against_ratings(cells.outcomes[name], cells.outcomes[RATING])
    return {
        "outcome": name,
        "auroc": _known(found.auroc),
        "low": _known(found.low),
        "high": _known(found.high),
        "texts": found.texts,
        "openings": list(found.openings),
        "needed_low": VALID_AUROC,
        "needed_openings": VALID_OPENINGS,
        "doubt": found.doubt or None,
    }


def _metrics(scoring: Scoring, unknown: int) -> ScoringMetrics:
    metrics: ScoringMetrics = {
        "verdict": scoring["verdict"],
        "reason": scoring["reason"],
        "primary": scoring["primary"],
        "contrast": scoring["contrast"],
        "estimate": scoring["estimate"],
        "low": scoring["low"],
        "high": scoring["high"],
        "n": scoring["n"],
        "secondary": len(scoring["secondary"]),
        "secondary_found": sum(one["p_holm"] <= LEVEL for one in scoring["secondary"]),
        "unknown": unknown,
    }
    if scoring["p"] is not None:
        metrics["p"] = scoring["p"]
    return metrics


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
