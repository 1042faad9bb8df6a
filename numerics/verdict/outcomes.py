"""Outcomes beside one another: a verdict on a declared one, and whether it may be believed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.statistics.auroc import auroc_interval, average_ranks
from loopscope.numerics.verdict.cells import NONE, PRIMARY_ARMS, ScoredCells
from loopscope.numerics.verdict.decision import Decision, Evidence, VerdictRules, decide
from loopscope.numerics.verdict.evidence import CONCEPT, INTACT, evidence_of
from loopscope.numerics.verdict.fairness import budget_errors

Floats = NDArray[np.float64]

VALID_AUROC = 0.9
"""Least lower bound of the AUROC against people's ratings of an outcome that may answer."""
VALID_OPENINGS = 20
"""Openings that need a text of either sort, rated by people."""
UNKNOWN_SHARE_MAX = 0.2
"""An outcome without a number of a larger share of the texts does not answer."""


@dataclass(frozen=True)
class Separation:
    """How well a number tells two sorts of texts apart, with the 95 % interval of its AUROC.

    ``openings`` have a text of the first, and of the second sort: texts of one opening are not
    independent, so these count in the interval. NaN where one sort is missing.
    """

    auroc: float
    low: float
    high: float
    texts: int
    openings: tuple[int, int]

    @property
    def doubt(self) -> str:
        """Why the number may not answer; empty where it may."""
        if min(self.openings) < VALID_OPENINGS:
            return (
                f"people's ratings name {self.openings[0]} openings with a text about the concept "
                f"and {self.openings[1]} with another one; {VALID_OPENINGS} of each are needed"
            )
        if not self.low >= VALID_AUROC:
            return (
                f"its AUROC against people's ratings is {self.auroc:.3f} "
                f"[{self.low:.3f}, {self.high:.3f}], and the lower bound must reach {VALID_AUROC:g}"
            )
        return ""


def separation(
    values: Sequence[float], about: Sequence[bool], openings: Sequence[Hashable]
) -> Separation:
    """Return how well ``values`` tell the texts that are ``about`` the concept from the others.

    The AUROC is U / (n⁺ n⁻) of Mann and Whitney 1947, ties a half; its interval that of
    ``auroc_interval`` with openings in place of texts.
    """
    scores, positive = np.asarray(values, dtype=np.float64), np.asarray(about, dtype=bool)
    counts = (
        len({one for one, yes in zip(openings, about, strict=True) if yes}),
        len({one for one, yes in zip(openings, about, strict=True) if not yes}),
    )
    n = int(positive.sum()), int((~positive).sum())
    if not min(n):
        return Separation(math.nan, math.nan, math.nan, len(scores), counts)
    ranks = average_ranks(scores)
    auroc = float((ranks[positive].sum() - n[0] * (n[0] + 1) / 2) / (n[0] * n[1]))
    return Separation(auroc, *auroc_interval(auroc, *counts), len(scores), counts)


def evidence_on(
    run: ScoredCells, primary: str, arm_cosines: Mapping[str, float], missing: Mapping[str, str]
) -> tuple[Evidence, int]:
    """Return what a verdict on the outcome ``primary`` rests on, and texts without a number.

    The outcome stands in the place of the concept score, which is a further outcome then,
    ``lexicon``. Where it has no number of some texts, an opening's score is the mean over those of
    its texts that have one; openings for which coarse, fine, multi or unsteered text has none are
    left out, and so is any other arm that then lacks one.
    """
    if primary == CONCEPT:
        return evidence_of(run, arm_cosines, missing, budget_errors(run)), 0
    others = {name: one for name, one in run.outcomes.items() if name not in (primary, CONCEPT)}
    found = run.outcomes[primary]
    outcomes = {CONCEPT: found, **others, "lexicon": run.outcomes[CONCEPT]}
    unknown = int(np.isnan(found).sum())
    whole = replace(run, outcomes=outcomes)
    if not unknown:
        return evidence_of(whole, arm_cosines, missing, budget_errors(whole)), 0
    known, intact = _over_known_texts(whole)
    if known is None:
        return Evidence({}, arm_cosines, {**missing, **_all_missing(run, primary)}), unknown
    lost = {
        arm: f"{primary} has no number of its texts" for arm in run.arms if arm not in known.arms
    }
    evidence = evidence_of(known, arm_cosines, {**missing, **lost}, budget_errors(known))
    return replace(evidence, intact=intact), unknown


def decide_on(
    evidence: Evidence, rules: VerdictRules, primary: str, doubt: str | None = None
) -> Decision:
    """Return the verdict on an outcome; ``NotTestable`` where a ``doubt`` silences it."""
    decision = decide(evidence, rules)
    if not doubt:
        return decision
    reason = f"{primary} may not answer: {doubt}"
    silent = replace(decision.judgement, verdict="NotTestable", reason=reason, p=None)
    return replace(decision, judgement=silent, design=None)


def unknown_doubt(unknown: int, texts: int) -> str:
    """Return why an outcome without a number of some texts may not answer; empty where it may."""
    if unknown <= UNKNOWN_SHARE_MAX * texts:
        return ""
    return f"it has no number of {unknown:,} of {texts:,} texts"


def against_ratings(values: Floats, rating: Floats) -> Separation:
    """Return how well an outcome tells apart what people say, both [cells, openings, samples]."""
    both = ~np.isnan(values) & ~np.isnan(rating)
    openings = np.broadcast_to(np.arange(values.shape[1])[None, :, None], values.shape)[both]
    return separation(values[both].tolist(), (rating[both] > 0.5).tolist(), openings.tolist())


def _all_missing(run: ScoredCells, primary: str) -> dict[str, str]:
    return dict.fromkeys(run.arms, f"there is no opening of which {primary} knows every arm")


def _over_known_texts(run: ScoredCells) -> tuple[ScoredCells | None, Mapping[str, Floats]]:
    """Return the run with the primary outcome's mean over known texts as an opening's only score.

    And the same among intact texts [openings] of each arm, NaN without any. None where no opening
    is left.
    """
    concept, intact = run.outcomes[CONCEPT], run.outcomes[INTACT]
    is_known = ~np.isnan(concept)
    texts = is_known.sum(axis=2)
    needed = [number for number, (arm, _) in enumerate(run.cells) if arm in (*PRIMARY_ARMS, NONE)]
    kept = (texts[needed] > 0).all(axis=0)
    if not kept.any():
        return None, {}
    cells = [number for number in range(len(run.cells)) if (texts[number][kept] > 0).all()]
    at = np.ix_(np.array(cells), np.flatnonzero(kept))
    share = np.where(is_known, intact, 0.0)[at].sum(axis=2, keepdims=True)
    hits = np.where(is_known, concept * intact, 0.0)[at].sum(axis=2, keepdims=True)
    score = np.where(is_known, concept, 0.0)[at].sum(axis=2, keepdims=True) / texts[at][:, :, None]
    found = replace(
        run,
        cells=[run.cells[number] for number in cells],
        outcomes={
            **{
                name: values[at]
                for name, values in run.outcomes.items()
                if name not in (CONCEPT, INTACT)
            },
            CONCEPT: score,
            INTACT: np.ones_like(score),
        },
        kl=run.kl[cells],
        budget=None if run.budget is None else run.budget[cells],
        group=None if run.group is None else run.group[kept],
        turn=None if run.turn is None else run.turn[kept],
    )
    by_arm = zip(found.by_arm(hits).items(), found.by_arm(share).values(), strict=True)
    rates = {
        arm: np.where(some[:, 0] > 0, hit[:, 0] / np.where(some[:, 0] > 0, some[:, 0], 1.0), np.nan)
        for (arm, hit), some in by_arm
    }
    return found, rates
