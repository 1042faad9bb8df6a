"""Further outcomes: the verdict on the primary one, from the numbers of texts."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import pandas

from loopscope.numerics.verdict.cells import ScoredCells
from loopscope.numerics.verdict.decision import VerdictRules
from loopscope.numerics.verdict.outcomes import (
    against_ratings,
    decide_on,
    evidence_on,
    unknown_doubt,
)
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.reports.verification.steering import check_decision, run_of
from loopscope.specs.artifacts.scoring import (
    ANSWERS_OF_THE_JUDGE,
    OUTCOME_ARMS,
    SCORING,
    TEXT_OUTCOMES,
    Scoring,
)
from loopscope.specs.artifacts.steering import SAMPLES, SCORES, VERDICT
from loopscope.specs.outcomes import OF_TEXTS, leading_column
from loopscope.views.scored_cells import scored_cells

MEANS = "outcomes: means of arms"
JUDGED = "outcomes: the judge's shares, from its answers"
VALID = "outcomes: whether the primary one may answer"
_KEYS = ["prompt_id", "arm", "strength", "sample"]
_MEASURED = "measuring them again is the work of a worker"


def check_scoring(bundle: OpenBundle, findings: Findings) -> None:
    """Compute the means, the judge's shares and the verdict on the primary outcome again."""
    scoring, outcomes, arms = (
        bundle.document(SCORING), bundle.table(TEXT_OUTCOMES), bundle.table(OUTCOME_ARMS)
    )  # fmt: skip
    scores, verdict = bundle.table(SCORES), bundle.document(VERDICT)
    if scoring is None or outcomes is None or arms is None or scores is None or verdict is None:
        return
    with findings.part(VALID, SCORING.name):
        run = _with_outcomes(bundle, run_of(bundle, scores), outcomes)
        _check_means(run, arms, findings)
        _check_judge(bundle, outcomes, findings)
        column = leading_column(scoring["primary"])
        evidence, unknown = evidence_on(run, column, verdict["arm_cosines"], verdict["missing"])
        doubt = _check_doubt(scoring, run, unknown, findings)
        steering = bundle.experiment["steering"]
        rules = VerdictRules(steering["minDifference"], steering["maxArmCosine"])
        decided = decide_on(evidence, rules, scoring["primary"], doubt)
        check_decision(decided, rules, scoring, findings)
    findings.leave_out("outcomes of texts (repetition, words, embedding)", _MEASURED)
    findings.leave_out("what a judge was asked, and its agreement with others", "they are told")


def _with_outcomes(bundle: OpenBundle, run: ScoredCells, table: pandas.DataFrame) -> ScoredCells:
    found = dict(run.outcomes)
    for name, rows in table.groupby("outcome", sort=False):
        own = rows[[*_KEYS, "value"]]
        found[str(name)] = scored_cells(own, bundle.spec("steering")).outcomes["value"]
    return replace(run, outcomes=found)


def _check_means(run: ScoredCells, arms: pandas.DataFrame, findings: Findings) -> None:
    number = {cell: place for place, cell in enumerate(run.cells)}
    means, counts = [], []
    for arm, strength, name in zip(arms["arm"], arms["strength"], arms["outcome"], strict=True):
        values = run.outcomes[name][number[arm, strength]]
        known = values[~np.isnan(values)]
        means.append(known.mean() if known.size else np.nan)
        counts.append(known.size)
    findings.column(MEANS, "mean", arms["mean"].to_numpy(), np.array(means))
    findings.column(MEANS, "n", arms["n"].to_numpy(), np.array(counts))


def _check_judge(bundle: OpenBundle, outcomes: pandas.DataFrame, findings: Findings) -> None:
    """Compare the share of yes of each text with the answers about it."""
    answers, samples = bundle.table(ANSWERS_OF_THE_JUDGE), bundle.table(SAMPLES)
    if answers is None or samples is None:
        return
    read = answers[answers["said"] != ""]
    shares = (read["said"] == "yes").groupby(read["text_sha256"]).mean()
    own = outcomes[outcomes["outcome"] == "judge"].merge(samples[[*_KEYS, "text"]], on=_KEYS)
    of_text = own["text"].map(_sha256).map(shares)
    findings.column(JUDGED, "judge", own["value"].to_numpy(), of_text.to_numpy(dtype=float))


def _sha256(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _check_doubt(
    scoring: Scoring, run: ScoredCells, unknown: int, findings: Findings
) -> str | None:
    """Return why the primary outcome may not answer, as it is computed again."""
    primary: Any = scoring["primary"]
    outcome = OF_TEXTS.get(primary)
    validation = scoring["validation"]
    if primary == "judge":
        return unknown_doubt(unknown, run.outcomes[leading_column(primary)].size)
    must = outcome is not None and outcome.validated
    findings.same(VALID, "validation", validation is not None, must)
    if outcome is None or validation is None or not must:
        return None
    found = against_ratings(run.outcomes[outcome.columns[0].name], run.outcomes["rating"])
    for name in ("auroc", "low", "high", "texts"):
        findings.same(VALID, f"validation.{name}", dict(validation)[name], getattr(found, name))
    findings.same(VALID, "validation.openings", validation["openings"], list(found.openings))
    findings.same(VALID, "validation.doubt", validation["doubt"], found.doubt or None)
    return found.doubt
