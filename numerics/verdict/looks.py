"""Looks at a run that may stop early: the verdict on the openings that were scored by then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loopscope.numerics.verdict.cells import ScoredCells
from loopscope.numerics.verdict.decision import VerdictRules, judge
from loopscope.numerics.verdict.evidence import CONCEPT, INTACT, evidence_of
from loopscope.numerics.verdict.fairness import budget_errors
from loopscope.numerics.verdict.sequential import NEEDED, WordE


@dataclass(frozen=True)
class Look:
    """The verdict after so many openings; ``bets`` are None where nothing was testable yet."""

    openings: int
    verdict: str
    bets: WordE | None

    @property
    def decides(self) -> bool:
        """Whether no further opening is steered."""
        return self.verdict in NEEDED


def look(
    run: ScoredCells,
    openings: int,
    arm_cosines: Mapping[str, float],
    missing: Mapping[str, str],
    rules: VerdictRules,
) -> Look:
    """Return what a look after the first ``openings`` says of the concept score."""
    kept = {name: run.outcomes[name] for name in (CONCEPT, INTACT)}
    seen = ScoredCells(run.cells, kept, run.kl, run.budget, run.group, run.turn).first(openings)
    found = judge(evidence_of(seen, arm_cosines, missing, budget_errors(seen)), rules)
    return Look(openings, found.verdict, found.bets)


def looks(
    run: ScoredCells,
    blocks: Sequence[Sequence[int]],
    arm_cosines: Mapping[str, float],
    missing: Mapping[str, str],
    rules: VerdictRules,
) -> list[Look]:
    """Return the look after each block of openings."""
    ends = [sum(map(len, blocks[: number + 1])) for number in range(len(blocks))]
    return [look(run, end, arm_cosines, missing, rules) for end in ends]
