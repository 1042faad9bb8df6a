"""A steering with its scores, from which its verdict can be had again under other choices."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas

from loopscope.numerics.verdict.cells import NONE, UNSTEERED, Floats, ScoredCells
from loopscope.numerics.verdict.decision import PRIMARY, Judgement, VerdictRules, judge
from loopscope.numerics.verdict.evidence import CONCEPT, INTACT, evidence_of
from loopscope.numerics.verdict.fairness import budget_errors
from loopscope.numerics.verdict.outcomes import evidence_on
from loopscope.specs.artifacts.verdict import Verdict
from loopscope.specs.spec_json import SteeringJson
from loopscope.views.scored_cells import scored_cells

PRIMARY_CELLS = {arm for pair in PRIMARY for arm in pair} | {NONE}
KEYS = ["prompt_id", "arm", "strength", "sample"]
TOLERANCE = 1e-6


@dataclass(frozen=True)
class StoredRun:
    """The scores by cell, the declared verdict and its rules."""

    cells: ScoredCells
    verdict: Verdict
    rules: VerdictRules

    def judged(self) -> Judgement:
        """Return the declared verdict, from the scores."""
        return self.of_concept(self.cells.outcomes[CONCEPT])

    def of_concept(self, concept: Floats) -> Judgement:
        """Return the verdict with another concept score [cells, openings, samples]."""
        outcomes = {CONCEPT: concept, INTACT: self.cells.outcomes[INTACT]}
        return self._judge(replace(self.cells, outcomes=outcomes))

    def of_outcome(self, name: str) -> tuple[Judgement, int]:
        """Return the verdict on another outcome, and how many texts have no number of it."""
        kept = {one: self.cells.outcomes[one] for one in (CONCEPT, INTACT, name)}
        run = replace(self.cells, outcomes=kept)
        cosines, missing = self.verdict["arm_cosines"], self.verdict["missing"]
        evidence, unknown = evidence_on(run, name, cosines, missing)
        return judge(replace(evidence, secondary={}), self.rules), unknown

    def at_strength(self, strength: float) -> Judgement:
        """Return the verdict from one strength alone, with the error of its own budgets."""
        own = {
            place
            for place, (arm, at) in enumerate(self.cells.cells)
            if arm in UNSTEERED or at == strength
        }
        return self._judge(_only(self.cells, own))

    def _judge(self, run: ScoredCells) -> Judgement:
        kept = {name: run.outcomes[name] for name in (CONCEPT, INTACT)}
        run = replace(run, outcomes=kept)
        cosines, missing = self.verdict["arm_cosines"], self.verdict["missing"]
        return judge(evidence_of(run, cosines, missing, budget_errors(run)), self.rules)


def stored_run(
    scores: pandas.DataFrame,
    neutral: pandas.DataFrame | None,
    further: Mapping[str, pandas.DataFrame],
    verdict: Verdict,
    spec: SteeringJson,
) -> StoredRun | None:
    """Return the run of ``steering_scores.parquet``, None where its verdict cannot be had again.

    It was made by other rules then, or without what is stored today. ``neutral`` is
    ``neutral_text.parquet``, ``further`` by name the rows of further outcomes of the same texts.
    """
    if not {"min_difference", "max_arm_cosine", "arm_cosines", "missing", "contrast"} <= set(
        verdict
    ):
        return None
    if not {CONCEPT, INTACT} <= set(scores) or not set(scores["arm"]) >= PRIMARY_CELLS:
        return None
    if neutral is None and verdict.get("budget") is not None:
        return None
    cells = scored_cells(scores, spec, neutral)
    if not cells.common_strengths():
        return None
    own = {  # in the order of the scores, which is that of the cells
        name: scored_cells(scores[KEYS].merge(rows, on=KEYS, how="left"), spec).outcomes["value"]
        for name, rows in further.items()
    }
    rules = VerdictRules(verdict["min_difference"], verdict["max_arm_cosine"])
    run = StoredRun(replace(cells, outcomes={**cells.outcomes, **own}), verdict, rules)
    return run if _is_had_again(run.judged(), verdict) else None


def _is_had_again(found: Judgement, verdict: Verdict) -> bool:
    binding = found.binding
    if found.verdict != verdict["verdict"] or binding is None:
        return False
    return binding.contrast == verdict["contrast"] and all(
        told is None or math.isclose(told, seen, abs_tol=TOLERANCE)
        for told, seen in (
            (verdict["estimate"], binding.estimate),
            (verdict["low"], binding.low),
            (verdict["high"], binding.high),
        )
    )


def _only(run: ScoredCells, own: Collection[int]) -> ScoredCells:
    kept = np.array(sorted(own), dtype=np.int64)
    return replace(
        run,
        cells=[run.cells[place] for place in kept],
        outcomes={name: values[kept] for name, values in run.outcomes.items()},
        kl=run.kl[kept],
        budget=None if run.budget is None else run.budget[kept],
    )
