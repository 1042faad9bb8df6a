"""How often is each word said, and how often is it wrong?

Run with ``.venv/bin/python benchmarks/verdict_errors.py RECORD [--worlds 5000] [--quick]``. RECORD
is a JSON-lines file; cells that it holds are not played again: a run that was stopped goes on.
Without ``--worlds`` the table of what RECORD holds is printed.

A world has the scores that a study has: 0 or 1 per text, several samples an opening, arms of one
opening correlated by its difficulty. The truth is multi minus the better single arm (fine). Coarse
is 0.25 below it, the least favourable case for Supported; with twins it is as good, the least
favourable one for Refuted and for a difference at minDifference. With clusters, ten openings
share a part of their difficulty and of what the arms do to it. With budget errors, the log KL of
each arm is off by an error of sd 0.1, which moves its rate by 0.25 per unit of log KL for *all*
openings; the verdict is told the standard deviation that this gives a contrast.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter, defaultdict
from dataclasses import asdict, astuple, dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import scipy.special

from loopscope.numerics.verdict.decision import Evidence, VerdictRules, judge

TRUTHS = (-0.3, -0.15, -0.05, 0.0, 0.05, 0.15, 0.3)
OPENINGS = (20, 50, 126, 400)
SAMPLES = (1, 3)
FLAGS = (False, True)
DELTA = 0.15
FINE, COARSE, UNSTEERED = 0.45, 0.20, 0.03
CLUSTER = 10
CLUSTER_SD = 0.06
PORTION = 1_000
"""Worlds between two lines of the record."""
BUDGET_SD, SLOPE = 0.1, 0.25
DIFFICULTY_SD = 0.5
WORDS = ("Supported", "Refuted", "NoPracticalDifference", "Inconclusive", "NotTestable")
RULES = VerdictRules(DELTA, 0.98)
COSINES = {"coarse~multi": 0.9, "fine~multi": 0.9}


@dataclass(frozen=True)
class Case:
    """One cell of the table."""

    truth: float
    openings: int
    samples: int
    clusters: bool
    budget_error: bool
    twins: bool = False

    @property
    def seed(self) -> int:
        """A key of its own for each cell."""
        place = TRUTHS.index(self.truth) * 10_000 + self.openings * 10 + self.samples
        return 8 * place + 4 * self.twins + 2 * self.clusters + self.budget_error

    @cached_property
    def difference(self) -> float:
        """The expected difference of multi and fine: the truth, but for chances cut at 0 and 1."""
        cluster = CLUSTER_SD if self.clusters else 0.0
        shift = math.hypot(cluster, SLOPE * BUDGET_SD if self.budget_error else 0.0)
        return _expected(FINE + self.truth, shift) - _expected(FINE, shift)


def _expected(rate: float, shift_sd: float) -> float:
    """Return the mean of an arm's chances over difficulties and shifts (Gauss and Hermite)."""
    if shift_sd == 0:
        return rate
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    chance = _spread(rate, DIFFICULTY_SD * nodes)
    cut = _mean_above_zero(chance, shift_sd) - _mean_above_zero(chance - 1, shift_sd)
    return float(weights @ cut / weights.sum())


def _mean_above_zero(mean: np.ndarray, sd: float) -> np.ndarray:
    """Return the expectation of max(0, x) for normal x."""
    z = mean / sd
    return np.asarray(
        mean * scipy.special.ndtr(z) + sd * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    )


def cases(quick: bool) -> list[Case]:
    """All cells, those that say most first: no difference, the smallest practical one."""
    truths = sorted(TRUTHS, key=lambda truth: (abs(truth) not in (0.0, DELTA), abs(truth)))
    near, far = truths[:3], truths[3:]
    openings = (20, 126) if quick else (20, 126, 400, 50)
    return [
        Case(truth, n, samples, clusters, budget_error, twins)
        for some in (near, far)
        for n, truth, samples, clusters, budget_error, twins in product(
            openings, some, SAMPLES, FLAGS, FLAGS, FLAGS
        )
        if not twins or truth in (0.0, DELTA)
    ]


def play(case: Case, number: int) -> tuple[str, bool]:
    """Return the word that is said of one world, and whether the interval of multi − fine holds."""
    generator = np.random.Generator(np.random.Philox(key=[case.seed, number]))
    n, m = case.openings, case.samples
    group = np.arange(n) // CLUSTER if case.clusters else None
    difficulty = DIFFICULTY_SD * generator.standard_normal(n)
    coarse = FINE if case.twins else COARSE
    rates = {"none": UNSTEERED, "coarse": coarse, "fine": FINE, "multi": FINE + case.truth}
    common = generator.random((n, m))
    concept = {}
    for arm, rate in rates.items():
        shift = np.zeros(n)
        if group is not None and arm != "none":
            shift = CLUSTER_SD * generator.standard_normal(group.max() + 1)[group]
        if case.budget_error and arm != "none":
            shift = shift + SLOPE * BUDGET_SD * generator.standard_normal()
        chance = np.clip(_spread(rate, difficulty) + shift, 0.0, 1.0)[:, None]
        own = generator.random((n, m))
        drawn = np.where(generator.random((n, m)) < 0.3, common, own)
        concept[arm] = (drawn < chance).astype(np.float64)
    shared = math.sqrt(2) * SLOPE * BUDGET_SD if case.budget_error else 0.0
    evidence = Evidence(
        concept,
        COSINES,
        group=group,
        shared_sd={"multi-coarse": shared, "multi-fine": shared},
    )
    found = judge(evidence, RULES)
    fine = next(c for c in found.primary if c.contrast == "multi-fine")
    return found.verdict, fine.low <= case.difference <= fine.high


def _spread(rate: float, difficulty: np.ndarray) -> np.ndarray:
    """Return chances with mean ``rate`` that fall with difficulty (a probit model)."""
    centre = scipy.special.ndtri(rate) * math.sqrt(1 + DIFFICULTY_SD**2)
    return np.asarray(scipy.special.ndtr(centre - difficulty))


def wrong(case: Case) -> tuple[str, ...]:
    """Return the words that are wrong of a cell's truth."""
    words = []
    if case.truth <= 0:
        words.append("Supported")
    if case.truth >= 0:
        words.append("Refuted")
    if abs(case.truth) >= DELTA:
        words.append("NoPracticalDifference")
    return tuple(words)


@dataclass
class Played:
    """What was said in the worlds of one cell."""

    worlds: int = 0
    said: Counter[str] = field(default_factory=Counter)
    covered: int = 0


def read(record: Path) -> dict[Case, Played]:
    """Return what RECORD holds: the lines of one cell added up."""
    found: dict[Case, Played] = defaultdict(Played)
    for line in record.read_text().splitlines():
        row = json.loads(line)
        played = found[Case(**row["case"])]
        played.worlds += row["worlds"]
        played.said.update(row["said"])
        played.covered += row["covered"]
    return found


def play_on(record: Path, case: Case, first: int, worlds: int) -> None:
    """Play worlds of a cell from number ``first`` on and add a line to RECORD."""
    said, covered = Counter[str](), 0
    for number in range(first, first + worlds):
        word, holds = play(case, number)
        said[word] += 1
        covered += holds
    row = {"case": asdict(case), "worlds": worlds, "said": said, "covered": covered}
    with record.open("a") as out:
        out.write(json.dumps(row) + "\n")


def table(record: Path) -> str:
    """Return the recorded cells as a Markdown table, wrong words in bold."""
    lines = [
        "| truth | openings | samples | clusters | budget error | twins | worlds | "
        + " | ".join(WORDS)
        + " | interval holds |",
        "|" + "---|" * (len(WORDS) + 8),
    ]
    for case, played in sorted(read(record).items(), key=lambda item: astuple(item[0])):
        worlds = played.worlds
        shares = [
            f"**{played.said[word] / worlds:.1%}**"
            if word in wrong(case)
            else f"{played.said[word] / worlds:.0%}"
            for word in WORDS
        ]
        signs = ["yes" if flag else "no" for flag in (case.clusters, case.budget_error, case.twins)]
        cells = [f"{case.truth:+.2f}", case.openings, case.samples, *signs, worlds, *shares]
        cells.append(f"{played.covered / worlds:.1%}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Play what the record lacks, then print the table and the worst wrong word."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--worlds", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="20 and 126 openings only")
    parser.add_argument("--only", help="cells of one truth,openings,samples only: 0,126,3")
    options = parser.parse_args()
    options.record.touch()
    only = tuple(map(float, options.only.split(","))) if options.only else None
    for case in cases(options.quick):
        if only not in (None, (case.truth, case.openings, case.samples)):
            continue
        first = read(options.record)[case].worlds
        for start in range(first, options.worlds, PORTION):
            play_on(options.record, case, start, min(PORTION, options.worlds - start))
    print(table(options.record))


if __name__ == "__main__":
    main()
