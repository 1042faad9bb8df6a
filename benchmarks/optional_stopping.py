"""How often is a wrong word said by who looks after every opening and stops when it suits?

Run with ``.venv/bin/python benchmarks/optional_stopping.py "MACHINE" [--worlds 20000]``; it writes
``docs/optional-stopping.md``. What a steering with ``stopEarly`` does is played with the functions
that it calls, in fewer worlds (``--whole-worlds``).

A world is that of ``verdict_errors.py``: scores of 0 or 1, arms of one opening correlated by its
difficulty, none and coarse below fine unless they are twins, multi at fine plus the truth. One
looks from the 20th opening on after each one, up to 400.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.special
from numpy.typing import NDArray

from loopscope.numerics.statistics.paired import rate_interval
from loopscope.numerics.verdict.cells import ScoredCells
from loopscope.numerics.verdict.decision import VerdictRules
from loopscope.numerics.verdict.looks import Look, look
from loopscope.numerics.verdict.sequential import NEEDED, word_e, word_so_far

Floats = NDArray[np.float64]

PAGE = Path(__file__).parents[1] / "docs/optional-stopping.md"
FIRST_LOOK, LAST_LOOK = 20, 400
DELTA = 0.15
FINE, COARSE = 0.45, 0.20
DIFFICULTY_SD = 0.5
PORTION = 1_000
WORDS = ("Supported", "Refuted", "NoPracticalDifference")
LEVELS = {"Supported": 0.025, "Refuted": 0.025, "NoPracticalDifference": 0.05}
EVERY = 20
STOP_EARLY = f"stopEarly, a look after each {EVERY} openings"
RULES = ("e-values, a look after each opening", STOP_EARLY, "t test, a look after each opening",
         "t test, one look at 400")  # fmt: skip
COSINES = {"coarse~multi": 0.5, "fine~multi": 0.5}


HEAD = """# Optional stopping

How often a wrong word is said by who looks after every opening, from the {first}th to the
{last}th, and stops when it suits. Written by `benchmarks/optional_stopping.py`; {today},
commit {commit}, {machine}; {worlds:,} worlds a line.

The e-values are those of `numerics/verdict/sequential.py`: bets against each null, with stakes that
know earlier openings alone, so a wrong word is said at *any* look with at most its level (Ville
1939; Waudby-Smith and Ramdas 2024). Beside them stand paired t tests, looked at as often, and once,
at the end; *stopEarly* is what [steering does](how-to/stop-early.md): the same e-values, with the
verdict of a fixed number of openings beside them (`numerics/verdict/looks.py`), in {whole:,} worlds
a line. A world is that of [verdict errors](verdict-errors.md): scores of 0 or 1, one sample,
fine 0.45, coarse 0.20 (*twins*: 0.45), multi at fine plus the truth. A word is wrong when the truth
denies it; its share is then **bold**. Levels: 2.5 %, 2.5 %, 5 %.

What e-values do not cover: an error that all openings share (equal budgets that are not quite
equal) does not become smaller with more of them, whoever looks; and the order of the openings must
be fixed before their scores are known.
"""


@dataclass(frozen=True)
class Case:
    """A truth, multi minus fine, and whether coarse is as good as fine."""

    truth: float
    twins: bool = False

    @property
    def name(self) -> str:
        """What stands in the table."""
        return f"{self.truth:+.2f}{', twins' if self.twins else ''}"

    def wrong(self, word: str) -> bool:
        """Whether the truth denies a word."""
        if word == "Supported":
            return self.truth <= 0
        return self.truth >= 0 if word == "Refuted" else abs(self.truth) >= DELTA


CASES = tuple(
    Case(truth, twins) for twins in (False, True) for truth in (-0.3, -0.15, 0.0, 0.15, 0.3)
)


def _rate(mean: float) -> float:
    """Return the log-odds that give this mean chance over openings (bisection on a grid)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    low, high = -8.0, 8.0
    for _ in range(60):
        middle = (low + high) / 2
        found = scipy.special.expit(middle + DIFFICULTY_SD * nodes) @ weights / weights.sum()
        low, high = (middle, high) if found < mean else (low, middle)
    return (low + high) / 2


def arms(case: Case, worlds: int, rng: np.random.Generator) -> list[Floats]:
    """Return the scores of coarse, fine, multi [worlds, openings]."""
    difficulty = rng.normal(0.0, DIFFICULTY_SD, (worlds, LAST_LOOK))
    rates = (FINE if case.twins else COARSE, FINE, FINE + case.truth)
    return [
        (rng.random(difficulty.shape) < scipy.special.expit(_rate(rate) + difficulty)).astype(float)
        for rate in rates
    ]


def differences(case: Case, worlds: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return multi minus coarse and minus fine [worlds, openings]."""
    coarse, fine, multi = arms(case, worlds, rng)
    return multi - coarse, multi - fine


def stopped_early(case: Case, worlds: int) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the same as ``played`` of a steering that stops early; unsteered text never hits."""
    rng = np.random.default_rng([18, CASES.index(case)])
    scores = np.stack([np.zeros((worlds, LAST_LOOK)), *arms(case, worlds, rng)])
    said: dict[str, list[int]] = {word: [] for word in WORDS}
    for world in range(worlds):
        found = _decided(scores[:, world])
        if found is not None:
            said[found.verdict].append(found.openings)
    return {
        (STOP_EARLY, word): (len(after) / worlds, float(np.mean(after)) if after else float("nan"))
        for word, after in said.items()
    }


def _decided(scores: Floats) -> Look | None:
    """Return the look that ended one steering, of scores [arms, openings]; None where none did."""
    cells = [("none", 0.0), ("coarse", 1.0), ("fine", 1.0), ("multi", 1.0)]
    outcomes = {"concept": scores[:, :, None], "intact": np.ones((*scores.shape, 1))}
    order = np.arange(scores.shape[1])
    run = ScoredCells(cells, outcomes, np.zeros((len(cells), 1)), None, None, order)
    coarse, fine = (scores[3] - scores[arm] for arm in (1, 2))
    for openings in range(EVERY, LAST_LOOK + 1, EVERY):
        bets = word_so_far(coarse[:openings], fine[:openings], DELTA)
        if bets.word == "Inconclusive":  # a look says no word that they do not say
            continue
        found = look(run, openings, COSINES, {}, VerdictRules(DELTA, 0.98))
        if found.decides:
            return found
    return None


def t_p(values: Floats, null: float) -> Floats:
    """Return the one-sided p that the mean is above ``null`` after each opening."""
    n = np.arange(1, values.shape[-1] + 1, dtype=float)
    mean = np.cumsum(values, axis=-1) / n
    squares = np.cumsum(values**2, axis=-1) - n * mean**2
    error = np.sqrt(np.maximum(squares, 1e-12) / np.maximum(n - 1, 1) / n)
    return np.asarray(scipy.special.stdtr(np.maximum(n - 1, 1), (null - mean) / error))


def t_words(coarse: Floats, fine: Floats) -> dict[str, Floats]:
    """Return the p of each word after each opening, put together as a verdict does."""
    pairs = coarse, fine
    above = np.maximum(*(t_p(one, -DELTA) for one in pairs))
    below = 2 * np.minimum(*(t_p(-one, -DELTA) for one in pairs))
    return {
        "Supported": np.maximum(*(t_p(one, 0.0) for one in pairs)),
        "Refuted": 2 * np.minimum(*(t_p(-one, 0.0) for one in pairs)),
        "NoPracticalDifference": np.maximum(above, below),
    }


def played(case: Case, worlds: int, whole: int) -> dict[tuple[str, str], tuple[float, float]]:
    """Return, of each rule and word, in how many worlds it is said and after how many openings."""
    said: dict[tuple[str, str], list[Floats]] = {}
    rng = np.random.default_rng([17, CASES.index(case)])
    for _ in range(worlds // PORTION):
        for rule, word, reached in _looks(*differences(case, PORTION, rng)):
            said.setdefault((rule, word), []).append(reached)
    found = {}
    for key, parts in said.items():
        at = np.concatenate(parts)
        stopped = at[at > 0]
        found[key] = (
            float((at > 0).mean()),
            float(stopped.mean()) if stopped.size else float("nan"),
        )
    return found | stopped_early(case, whole)


def _looks(coarse: Floats, fine: Floats) -> Iterator[tuple[str, str, Floats]]:
    """Yield, of each rule and word, the opening after which it is said in each world, else 0."""
    looks = slice(FIRST_LOOK - 1, None)
    e_values = dict(zip(WORDS, word_e(coarse, fine, DELTA), strict=True))
    p_values = t_words(coarse, fine)
    for word in WORDS:
        yield RULES[0], word, _first(e_values[word][:, looks] >= NEEDED[word])
        yield RULES[2], word, _first(p_values[word][:, looks] <= LEVELS[word])
        yield RULES[3], word, LAST_LOOK * (p_values[word][:, -1] <= LEVELS[word]).astype(float)


def _first(said: NDArray[np.bool_]) -> Floats:
    return np.where(said.any(axis=1), FIRST_LOOK + said.argmax(axis=1), 0).astype(float)


def page(machine: str, worlds: int, whole: int) -> str:
    """Play all worlds, ``whole`` of them with all that a steering does; return the page."""
    found = {case: played(case, worlds, whole) for case in CASES}
    lines = [*_head(machine, worlds, whole), *_worst(found, worlds, whole), *_table(found)]
    return "\n".join(lines) + "\n"


Found = dict[Case, dict[tuple[str, str], tuple[float, float]]]
"""Of each world, rule and word: how often it is said, and after how many openings."""


def _head(machine: str, worlds: int, whole: int) -> Iterator[str]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    yield HEAD.format(
        first=FIRST_LOOK,
        last=LAST_LOOK,
        today=datetime.date.today(),
        commit=commit,
        machine=machine,
        worlds=worlds,
        whole=whole,
    )


def _worst(
    found: dict[Case, dict[tuple[str, str], tuple[float, float]]], worlds: int, whole: int
) -> Iterator[str]:
    yield "## In short\n"
    yield "| rule | word | wrong at worst | its 95 % interval |"
    yield "|---|---|---|---|"
    for rule in RULES:
        for word in WORDS:
            share = max(one[rule, word][0] for case, one in found.items() if case.wrong(word))
            n = whole if rule == STOP_EARLY else worlds
            hits = np.zeros((n, 1))
            hits[: round(share * n)] = 1.0
            low, high = rate_interval(hits)
            yield f"| {rule} | {word} | {share:.2%} | {low:.2%} to {high:.2%} |"
    yield ""


def _table(found: Found) -> Iterator[str]:
    yield "## All of it\n"
    yield "Share of worlds in which a word is said, and after how many openings on average.\n"
    yield "| truth | rule | " + " | ".join(WORDS) + " |"
    yield "|---|---|" + "---|" * len(WORDS)
    for case, one in found.items():
        for rule in RULES:
            cells = []
            for word in WORDS:
                share, after = one[rule, word]
                shown = f"**{share:.2%}**" if case.wrong(word) else f"{share:.1%}"
                cells.append(shown if np.isnan(after) else f"{shown} ({after:.0f})")
            yield f"| {case.name} | {rule} | " + " | ".join(cells) + " |"


def main() -> None:
    """Play the worlds and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("machine")
    parser.add_argument("--worlds", type=int, default=20_000)
    parser.add_argument("--whole-worlds", type=int, default=1_000)
    asked = parser.parse_args()
    text = page(asked.machine, asked.worlds, asked.whole_worlds)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
