"""A verdict on a declared outcome, and what lets it answer."""

import math

import numpy as np
import pytest
import scipy.stats

from loopscope.numerics.statistics.auroc import average_ranks
from loopscope.numerics.verdict.cells import ScoredCells
from loopscope.numerics.verdict.decision import VerdictRules, decide
from loopscope.numerics.verdict.outcomes import evidence_on, separation

CELLS = [("none", 0.0), ("coarse", 0.5), ("fine", 0.5), ("multi", 0.5), ("random-0", 0.5)]
RULES = VerdictRules(0.15, 0.98)
COSINES = {"coarse~multi": 0.8, "fine~multi": 0.8}


def run_of(judge, openings=40, samples=2):
    """A run in which the word list finds nothing and ``judge`` [cells, openings, samples] all."""
    shape = len(CELLS), openings, samples
    outcomes = {"concept": np.zeros(shape), "intact": np.ones(shape), "judge": judge}
    return ScoredCells(CELLS, outcomes, np.zeros((len(CELLS), 1)), None, None)


def planted(rates, openings=40, samples=2, seed=0):
    generator = np.random.default_rng(seed)
    draws = generator.random((len(CELLS), openings, samples))
    return (draws < np.array(rates)[:, None, None]).astype(float)


def verdict(evidence):
    return decide(evidence, RULES).judgement


def test_the_verdict_follows_the_outcome_that_was_declared():
    run = run_of(planted([0.05, 0.3, 0.3, 0.85, 0.1]))
    evidence, unknown = evidence_on(run, "judge", COSINES, {})
    assert (verdict(evidence).verdict, unknown) == ("Supported", 0)
    assert set(evidence.secondary) == {"lexicon"}
    words, _ = evidence_on(run, "concept", COSINES, {})
    assert verdict(words).verdict == "NotTestable"
    assert set(words.secondary) == {"judge"}


def test_texts_without_a_number_leave_the_mean_over_the_others():
    judge = planted([0.05, 0.3, 0.3, 0.85, 0.1])
    holes = judge.copy()
    holes[:, :, 1] = np.nan
    holes[3, 0, :] = np.nan  # multi has no text of the first opening
    holes[4, 5, :] = np.nan  # random none of the sixth
    evidence, unknown = evidence_on(run_of(holes), "judge", COSINES, {})
    assert unknown == np.isnan(holes).sum()
    assert "random" not in evidence.concept
    assert "judge has no number" in evidence.missing["random"]
    kept = [place for place in range(40) if place != 0]
    for number, (arm, _) in enumerate(CELLS[:4]):
        np.testing.assert_array_equal(evidence.concept[arm][:, 0], judge[number, kept, 0])
    assert verdict(evidence).verdict == "Supported"


def test_rates_among_intact_texts_leave_the_others_out():
    judge = planted([0.05, 0.3, 0.3, 0.85, 0.1])
    judge[0, 0, 0] = np.nan
    run = run_of(judge)
    run.outcomes["intact"][3, :, 0] = 0.0
    run.outcomes["intact"][3, 7, :] = 0.0
    evidence, _ = evidence_on(run, "judge", COSINES, {})
    expected = judge[3, :, 1].copy()
    expected[7] = math.nan
    np.testing.assert_array_equal(evidence.intact["multi"], expected)
    known = judge[0, 0, 1]
    assert evidence.intact["none"][0] == known


def test_where_nobody_knows_every_arm_nothing_is_testable():
    judge = np.full((len(CELLS), 40, 2), np.nan)
    judge[0] = 1.0
    found = verdict(evidence_on(run_of(judge), "judge", COSINES, {})[0])
    assert found.verdict == "NotTestable"
    assert "no opening of which judge knows every arm" in found.reason


@pytest.mark.parametrize("seed", range(5))
def test_an_auroc_is_u_of_mann_and_whitney(seed):
    generator = np.random.default_rng(seed)
    about = generator.random(60) < 0.4
    values = np.round(generator.normal(size=60) + about, 1)
    found = separation(values.tolist(), about.tolist(), list(range(60)))
    u = scipy.stats.mannwhitneyu(values[about], values[~about]).statistic
    assert found.auroc == pytest.approx(u / (about.sum() * (~about).sum()))
    assert found.low < found.auroc < found.high


@pytest.mark.parametrize("values", [[], [2.0], [1.0, 1.0, 1.0], [3.0, -1.0, 3.0, 0.0, -1.0, 3.0]])
def test_equal_values_share_the_mean_of_their_ranks(values):
    found = average_ranks(np.array(values))
    np.testing.assert_array_equal(found, scipy.stats.rankdata(values))


def test_texts_of_one_opening_count_as_one():
    values, about = [1.0] * 60 + [0.0] * 60, [True] * 60 + [False] * 60
    apart = separation(values, about, list(range(120)))
    together = separation(values, about, [place // 6 for place in range(120)])
    assert together.openings == (10, 10)
    assert together.low < apart.low
    assert apart.doubt == ""
    assert "20 of each are needed" in together.doubt


def test_what_separates_badly_may_not_answer_and_says_how_badly():
    generator = np.random.default_rng(3)
    about = [place % 2 == 0 for place in range(200)]
    values = [float(generator.normal() + yes) for yes in about]
    found = separation(values, about, list(range(200)))
    assert "lower bound must reach 0.9" in found.doubt
    assert math.isnan(separation([1.0], [True], [0]).auroc)
    assert separation([1.0], [True], [0]).doubt
