"""Several cells: corrected words by hand and in worlds, the pooled row against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from loopscope.numerics.verdict.several import Cell, Interval, corrected, mean_over_cells, pooled
from loopscope.numerics.verdict.words import WordP

PRIMARY = ("multi-coarse", "multi-fine")


def cell(word, supported=1.0, refuted=1.0, no_difference=1.0, **more):
    return Cell(word, WordP(supported, refuted, no_difference), **more)


def interval(estimate, error):
    return Interval(estimate, estimate - 1.959964 * error, estimate + 1.959964 * error)


def words(cells):
    return [word for word, _ in corrected(cells)]


def test_one_cell_keeps_its_word_and_its_p():
    for word, field in (("Supported", "supported"), ("Refuted", "refuted")):
        assert corrected([cell(word, **{field: 0.02})]) == [(word, pytest.approx(0.02))]
    assert corrected([cell("NoPracticalDifference", no_difference=0.04)]) == [
        ("NoPracticalDifference", pytest.approx(0.04))
    ]
    assert words([Cell("NotTestable")]) == ["NotTestable"]


def test_each_word_is_corrected_over_all_cells_by_holm():
    cells = [
        cell("Supported", supported=0.004),
        cell("Supported", supported=0.01),
        cell("Inconclusive", supported=0.3),
        cell("Inconclusive", supported=0.5),
    ]
    found = corrected(cells)
    assert [word for word, _ in found] == ["Supported", *["Inconclusive"] * 3]
    assert [p for _, p in found] == [pytest.approx(0.016), pytest.approx(0.03), None, None]


def test_a_cell_without_an_answer_counts_so_that_no_word_changes_when_it_ends():
    waiting = [cell("Supported", supported=0.01), Cell(""), Cell("NotTestable")]
    ended = [cell("Supported", supported=0.01), cell("Inconclusive", 0.9), Cell("NotTestable")]
    assert words(waiting)[0] == words(ended)[0] == "Inconclusive"


def test_a_word_whose_p_was_not_recorded_cannot_be_corrected():
    assert corrected([Cell("Supported"), cell("Refuted", refuted=0.001)])[0] == (None, None)


def test_at_most_one_family_in_forty_says_a_false_word():
    """Twenty true nulls with errors that cells share in part; tolerance three standard errors."""
    generator = np.random.default_rng(1)
    wrong, families = 0, 4000
    for _ in range(families):
        p = np.clip(generator.random(20), 0, 1)
        p[:10] = p[0]  # half of them are one and the same
        cells = [cell("Supported" if each <= 0.025 else "Inconclusive", each) for each in p]
        wrong += "Supported" in words(cells)
    assert wrong / families <= 0.025 + 3 * (0.025 * 0.975 / families) ** 0.5


@pytest.mark.parametrize("seed", range(4))
def test_the_pooled_mean_is_that_of_student_in_scipy(seed):
    generator = np.random.default_rng(seed)
    estimate = generator.normal(0.1, 0.2, 7)
    ours = mean_over_cells([interval(each, 0.05) for each in estimate], range(7))
    theirs = scipy.stats.ttest_1samp(estimate, 0.0)
    assert ours.estimate == pytest.approx(estimate.mean())
    assert ours.interval() == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert 2 * min(ours.p_above(0.0), ours.p_below(0.0)) == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("cells", [2, 3, 12])
def test_cells_that_agree_by_luck_are_not_taken_at_their_word(cells):
    """They count as differing as little as one family in ten does by errors alone."""
    ours = mean_over_cells([interval(0.05, 0.1)] * cells, range(cells))
    least = scipy.stats.chi2.ppf(0.1, cells - 1) / (cells - 1)
    assert ours.error == pytest.approx(0.1 * (least / cells) ** 0.5)
    low, high = ours.interval()
    assert low < 0.0 < high or cells == 12


def test_a_cell_does_not_weigh_more_because_its_few_texts_happened_to_agree():
    exact = [interval(0.3, 0.01), interval(0.0, 0.1), interval(0.1, 0.1)]
    alike = [interval(0.3, 0.1), interval(0.0, 0.1), interval(0.1, 0.1)]
    assert mean_over_cells(exact, range(3)).estimate == mean_over_cells(alike, range(3)).estimate


def test_two_single_arms_as_good_as_multi_are_called_better_no_more_often_than_declared():
    """Texts of 0 and 1 behind 20 openings, 24 cells that differ: 2.5 %, three standard errors."""
    generator = np.random.default_rng(4)
    worlds, openings = 2000, 20
    words = []
    for _ in range(worlds):
        rates = {
            "multi": 0.4 + 0.1 * generator.uniform(-1.7, 1.7, (24, 1, 1)),
            "coarse": 0.4,
            "fine": 0.4,
        }
        scores = {
            arm: (generator.random((24, openings, 2)) < each).mean(axis=2)
            for arm, each in rates.items()
        }
        words.append(pooled(_cells_of(scores), 0.15).word)
    wrong = words.count("Refuted") / worlds
    assert wrong <= 0.025 + 3 * (0.025 * 0.975 / worlds) ** 0.5


def _cells_of(scores):
    """Return cells with the contrasts of scores [cells, openings] by arm."""
    openings = scores["multi"].shape[1]
    seen = {name: scores["multi"] - scores[name.partition("-")[2]] for name in PRIMARY}

    def contrast(each):
        return interval(each.mean(), max(each.std(ddof=1) / openings**0.5, 1 / openings))

    return [
        Cell("", None, {name: contrast(each[number]) for name, each in seen.items()}, number)
        for number in range(len(scores["multi"]))
    ]


@pytest.mark.parametrize("cells", [2, 4, 12])
@pytest.mark.parametrize("tau", [0.0, 0.1])
@pytest.mark.parametrize("shared", [False, True])
def test_the_pooled_interval_covers_the_mean_also_where_cells_err_alike(cells, tau, shared):
    """95 % nominal; with few cells or shared texts it may cover more, never much less."""
    generator = np.random.default_rng(3)
    covered, worlds = 0, 1500
    for _ in range(worlds):
        error = generator.uniform(0.03, 0.09, cells)
        common = generator.standard_normal()
        noise = common if shared else generator.standard_normal(cells)
        estimate = 0.1 + tau * generator.standard_normal(cells) + error * noise
        found = [interval(*each) for each in zip(estimate, error, strict=True)]
        low, high = mean_over_cells(found, [0] * cells if shared else range(cells)).interval()
        covered += low <= 0.1 <= high
    assert covered / worlds >= 0.93


def test_the_pooled_row_has_a_word_by_the_same_rules():
    def several(estimates, error=0.02):
        return [
            Cell("", None, {name: interval(each, error) for name in PRIMARY}, texts=number)
            for number, each in enumerate(estimates)
        ]

    assert pooled(several([0.2, 0.22, 0.18, 0.21]), 0.15).word == "Supported"
    assert pooled(several([-0.2, -0.22, -0.18, -0.21]), 0.15).word == "Refuted"
    assert pooled(several([0.0, 0.02, -0.02, 0.01]), 0.15).word == "NoPracticalDifference"
    mixed = pooled(several([0.4, -0.3, 0.2, -0.1]), 0.15)
    assert mixed.word == "Inconclusive"
    assert mixed.tau["multi-fine"] == pytest.approx(0.31, abs=0.02)
    assert mixed.cells == 4


def test_what_was_not_tested_is_not_pooled_and_one_cell_is_no_row():
    one = Cell("", None, {name: interval(0.1, 0.02) for name in PRIMARY})
    assert pooled([one, Cell("NotTestable")], 0.15) is None
    assert pooled([one, Cell("NotTestable"), one], 0.15).cells == 2
    with pytest.raises(ValueError, match="2 of them"):
        mean_over_cells([interval(0.1, 0.02)], [0])
