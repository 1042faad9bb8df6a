"""How often a study's answer is right in worlds whose truth is known.

Run with ``.venv/bin/python benchmarks/study_errors.py --commit COMMIT --date DATE --machine TEXT``;
it writes docs/study-errors.md. A world has concepts whose true differences vary, texts of 0 or 1
for each arm, and the errors that a study would see. ``--worlds`` says how many worlds a row has.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.verdict.pooling import Interval, spread
from loopscope.numerics.verdict.several import Cell, pooled

Floats = NDArray[np.float64]
PAGE = Path(__file__).parent.parent / "docs" / "study-errors.md"
OPENINGS, SAMPLES = 20, 2
MARGIN = 0.15
FINE, SEED = 0.5, 18
REACH = 0.3
"""No concept differs from the truth by more, so that every rate lies between 0 and 1."""
CONCEPTS = (12, 24)
BETWEEN = (0.0, 0.1, 0.15)
TRUTHS = (-0.15, 0.0, 0.15)
CONTRASTS = ("multi-coarse", "multi-fine")
WORDS = ("Supported", "Refuted", "NoPracticalDifference", "Inconclusive")

PROSE = """# Study errors

How often a study's answer is right in worlds whose truth is known. Written by
`benchmarks/study_errors.py` with seed {seed} and {worlds:,} worlds a row; {note}.

A world has *k* concepts. In each, the texts of 20 openings with two samples score 0 or 1 under
coarse, fine and multi. Fine has a rate of {fine}; multi that plus a difference drawn around the
*truth* with standard deviation *tau* (a beta law, at most {reach} away, so that every rate lies
between 0 and 1 and the truth is the mean); coarse is worse by 0.15 or, with *twins*, as good as
fine. Openings differ in difficulty. What a study sees is the mean difference over openings and
its standard error, at least 1/20; nothing of it is normal by construction.

A word is wrong when the truth denies it: Supported at 0 or below, Refuted at 0 or above,
NoPracticalDifference at ±0.15; its share is then **bold**. *mean* and *new* say how often the 95 %
interval of the mean, and that of a new concept, hold the truth of multi minus fine. Where concepts
do not differ at all, the interval of a new one is wide all the same: it holds more.

| k | truth | tau | twins | {words} | mean | new |
|---|---|---|---|---|---|---|---|---|---|
"""


@dataclass
class Played:
    """What was counted over the worlds of a row."""

    worlds: int
    words: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WORDS, 0))
    mean: int = 0
    new: int = 0

    def share(self, number: int) -> str:
        return f"{100 * number / self.worlds:.1f} %"


def play(k: int, truth: float, tau: float, *, twins: bool, worlds: int) -> Played:
    """Return what a study of ``k`` concepts says in ``worlds`` worlds."""
    generator = np.random.default_rng(
        [SEED, k, round(1000 * (truth + 1)), round(1000 * tau), twins]
    )
    played = Played(worlds)
    for _ in range(worlds):
        differences = truth + _drawn(generator, tau, k + 1)
        cells = _cells(generator, differences[:k], twins=twins)
        found = pooled(cells, MARGIN)
        apart = spread([cell.primary["multi-fine"] for cell in cells])
        assert found is not None and apart is not None, "there are enough concepts"
        played.words[found.word] += 1
        mean = found.primary["multi-fine"]
        played.mean += mean.low <= truth <= mean.high
        played.new += apart.new.low <= differences[k] <= apart.new.high
    return played


def _drawn(generator: np.random.Generator, tau: float, number: int) -> Floats:
    """Return differences around 0 with standard deviation ``tau``, none beyond ``REACH``."""
    if tau == 0:
        return np.zeros(number)
    shape = ((REACH / tau) ** 2 - 1) / 2
    return REACH * (2 * generator.beta(shape, shape, number) - 1)


def _cells(generator: np.random.Generator, differences: Floats, *, twins: bool) -> list[Cell]:
    shape = (len(differences), OPENINGS, SAMPLES)
    hard = 0.05 * generator.uniform(-1, 1, (len(differences), OPENINGS, 1))
    rates = {
        "coarse": FINE if twins else FINE - 0.15,
        "fine": FINE,
        "multi": FINE + differences[:, None, None],
    }
    scores = {
        arm: (generator.random(shape) < rate + hard).mean(axis=2) for arm, rate in rates.items()
    }
    seen = {name: scores["multi"] - scores[name.partition("-")[2]] for name in CONTRASTS}
    errors = {
        name: np.maximum(one.std(axis=1, ddof=1) / OPENINGS**0.5, 1 / OPENINGS)
        for name, one in seen.items()
    }
    return [
        Cell("", None, {
            name: Interval.around(float(one[number].mean()), float(errors[name][number]))
            for name, one in seen.items()
        }, number)
        for number in range(len(differences))
    ]  # fmt: skip


def wrong(word: str, truth: float) -> bool:
    """Whether the truth denies a word."""
    if word == "Supported":
        return truth <= 0
    if word == "Refuted":
        return truth >= 0
    return word == "NoPracticalDifference" and abs(truth) >= MARGIN


def row(k: int, truth: float, tau: float, *, twins: bool, worlds: int) -> str:
    """Return a line of the table."""
    played = play(k, truth, tau, twins=twins, worlds=worlds)
    said = []
    for word in WORDS:
        share = played.share(played.words[word])
        said.append(f"**{share}**" if wrong(word, truth) else share)
    first = [str(k), f"{truth:+.2f}", f"{tau:g}", "yes" if twins else "no"]
    cells = [*first, *said, played.share(played.mean), played.share(played.new)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=400)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--date", required=True)
    parser.add_argument("--machine", required=True)
    asked = parser.parse_args()
    note = f"{asked.date}, commit {asked.commit}, {asked.machine}"
    text = PROSE.format(
        seed=SEED, worlds=asked.worlds, note=note, fine=FINE, reach=REACH, words=" | ".join(WORDS)
    )
    for k, truth, tau, twins in itertools.product(CONCEPTS, TRUTHS, BETWEEN, (False, True)):
        line = row(k, truth, tau, twins=twins, worlds=asked.worlds)
        print(line, flush=True)
        text += f"{line}\n"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
