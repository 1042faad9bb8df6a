"""Cohen's kappa: by hand, at its anchors, and its interval against the delta method by numbers."""

import math

import numpy as np
import pytest
import scipy.stats

from loopscope.numerics.statistics.agreement import cohen_kappa


def ratings(both, only_first, only_second, neither):
    first = [1] * both + [1] * only_first + [0] * only_second + [0] * neither
    second = [1] * both + [0] * only_first + [1] * only_second + [0] * neither
    return first, second


def kappa_of(cells):
    """Kappa of a 2 x 2 table of shares [first, second]."""
    table = np.asarray(cells).reshape(2, 2)
    expected = table.sum(axis=1) @ table.sum(axis=0)
    return (np.trace(table) - expected) / (1 - expected)


def test_by_hand():
    """20 yes of both, 5 and 10 of one alone, 15 of none: p_o 0.7, p_e 0.5, kappa 0.4."""
    found = cohen_kappa(*ratings(20, 5, 10, 15), range(50))
    assert (found.n, found.units, found.observed) == (50, 50, 0.7)
    assert found.kappa == pytest.approx(0.4)
    assert found.low < 0.4 < found.high


def test_equal_opposite_and_independent_raters():
    assert cohen_kappa([0, 1, 1, 0], [0, 1, 1, 0], range(4)).kappa == 1.0
    assert cohen_kappa([0, 1, 1, 0], [1, 0, 0, 1], range(4)).kappa == -1.0
    assert cohen_kappa([0, 0, 1, 1], [0, 1, 0, 1], range(4)).kappa == 0.0


@pytest.mark.parametrize("cells", [(20, 5, 10, 15), (3, 1, 2, 40), (7, 7, 7, 9)])
def test_the_interval_is_that_of_the_delta_method_on_the_multinomial(cells):
    """The gradient of kappa by differences, the covariance of shares by its formula."""
    both, first_alone, second_alone, neither = cells
    n = sum(cells)
    shares = np.array([neither, second_alone, first_alone, both]) / n
    step = 1e-6
    gradient = np.array(
        [
            (kappa_of(shares + step * unit) - kappa_of(shares - step * unit)) / (2 * step)
            for unit in np.eye(4)
        ]
    )
    covariance = (np.diag(shares) - np.outer(shares, shares)) / n
    deviation = math.sqrt(gradient @ covariance @ gradient * n / (n - 1))
    found = cohen_kappa(*ratings(*cells), range(n))
    width = scipy.stats.t.ppf(0.975, n - 1) * deviation
    assert found.kappa == pytest.approx(kappa_of(shares))
    assert (found.low, found.high) == pytest.approx(
        (max(-1, found.kappa - width), min(1, found.kappa + width)), rel=1e-6
    )


def test_texts_that_are_copies_add_nothing_to_what_is_known():
    """Each opening three times over: kappa stays, and so does its interval."""
    first, second = ratings(20, 5, 10, 15)
    once = cohen_kappa(first, second, range(50))
    thrice = cohen_kappa(first * 3, second * 3, list(range(50)) * 3)
    assert (thrice.kappa, thrice.low, thrice.high) == pytest.approx(
        (once.kappa, once.low, once.high)
    )
    assert cohen_kappa(first * 3, second * 3, range(150)).high < once.high


def test_the_interval_holds_the_true_kappa_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    shares = np.array([0.35, 0.1, 0.15, 0.4])
    inside = 0
    for _ in range(400):
        drawn = generator.multinomial(60, shares)
        found = cohen_kappa(*ratings(drawn[3], drawn[2], drawn[1], drawn[0]), range(60))
        inside += found.low <= kappa_of(shares) <= found.high
    assert 0.91 <= inside / 400 <= 0.98


def test_raters_who_say_one_thing_of_everything_have_no_kappa():
    found = cohen_kappa([1, 1, 1], [1, 1, 1], range(3))
    assert found.observed == 1.0 and math.isnan(found.kappa) and math.isnan(found.low)


def test_one_opening_alone_has_no_interval():
    found = cohen_kappa([1, 0, 1], [1, 0, 0], ["a"] * 3)
    assert found.units == 1 and not math.isnan(found.kappa) and math.isnan(found.high)


def test_more_than_two_words_are_compared_as_they_are():
    first, second = [0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 1, 2]
    expected = (2 * 1 + 2 * 3 + 2 * 2) / 36
    assert cohen_kappa(first, second, range(6)).kappa == pytest.approx(
        (5 / 6 - expected) / (1 - expected)
    )


def test_without_texts_or_with_other_texts_it_is_refused():
    with pytest.raises(ValueError, match="the same texts"):
        cohen_kappa([], [], [])
    with pytest.raises(ValueError, match="the same texts"):
        cohen_kappa([1, 0], [1], [0, 1])
