"""Pooling: against statsmodels and a slow reference, and in worlds whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from loopscope.numerics.verdict.pooling import (
    Interval,
    between,
    mean_over_cells,
    spread,
    typical_variance,
)


def found(estimate, error):
    return [Interval.around(float(y), float(s)) for y, s in zip(estimate, error, strict=True)]


def world(seed, cells, tau, mean=0.1):
    generator = np.random.default_rng(seed)
    error = generator.uniform(0.06, 0.14, cells)
    truth = mean + tau * generator.standard_normal(cells)
    return truth + error * generator.standard_normal(cells), error, truth


@pytest.mark.parametrize("seed", range(6))
def test_the_variance_between_cells_is_that_of_paule_and_mandel_in_statsmodels(seed):
    meta = pytest.importorskip("statsmodels.stats.meta_analysis")
    estimate, error, _ = world(seed, 14, 0.2 if seed % 2 else 0.03)
    theirs = meta.combine_effects(estimate, error**2, method_re="iterated", atol=1e-9)
    assert between(estimate, error**2) == pytest.approx(theirs.tau2, rel=1e-3, abs=1e-7)
    assert mean_over_cells(found(estimate, error), range(14)).tau ** 2 == pytest.approx(
        theirs.tau2, rel=1e-3, abs=1e-7
    )


def test_i_square_with_a_known_spread_is_that_of_higgins_and_thompson():
    meta = pytest.importorskip("statsmodels.stats.meta_analysis")
    estimate, error, _ = world(3, 20, 0.15)
    theirs = meta.combine_effects(estimate, error**2, method_re="dl")
    typical = typical_variance(error)
    assert theirs.tau2 / (theirs.tau2 + typical) == pytest.approx(theirs.i2, rel=1e-9)


def reference(estimate, error, seed=0, draws=200_000):
    """Return draws of tau, mu, a new cell and the first cell from their joint posterior, slowly."""
    generator = np.random.default_rng(seed)
    tau = np.linspace(0.0, 1.5, 6000)

    def log_density(value):
        variance = error**2 + value**2
        weight = 1 / variance
        mean = weight @ estimate / weight.sum()
        likelihood = scipy.stats.norm.logpdf(estimate, mean, np.sqrt(variance)).sum()
        return likelihood + 0.5 * np.log(2 * np.pi / weight.sum())

    log = np.array([log_density(value) for value in tau])
    share = np.exp(log - log.max())
    drawn = generator.choice(tau, draws, p=share / share.sum())
    weight = 1 / (error**2 + drawn[:, None] ** 2)
    whole = weight.sum(axis=1)
    mu = generator.normal((weight @ estimate) / whole, 1 / np.sqrt(whole))
    new = generator.normal(mu, drawn)
    kept = drawn**2 / (drawn**2 + error[0] ** 2)
    first = generator.normal(kept * estimate[0] + (1 - kept) * mu, np.sqrt(kept) * error[0])
    return drawn, new, first


@pytest.mark.parametrize("tau", [0.02, 0.2])
def test_what_depends_on_the_spread_is_that_of_draws_from_the_posterior(tau):
    """A tenth of a width is far more than the error of the draws."""
    estimate, error, _ = world(5, 15, tau)
    ours = spread(found(estimate, error))
    drawn = reference(estimate, error)
    for mine, theirs in zip((ours.tau, ours.new, ours.cells[0]), drawn, strict=True):
        low, high = np.quantile(theirs, [0.025, 0.975])
        assert mine.low == pytest.approx(low, abs=0.03 * (high - low))
        assert mine.high == pytest.approx(high, abs=0.03 * (high - low))
    assert ours.above == pytest.approx(float((drawn[1] > 0).mean()), abs=0.01)


def test_cells_are_drawn_to_the_mean_and_come_nearer_to_the_truth():
    estimate, error, truth = world(8, 24, 0.05)
    drawn = np.array([one.estimate for one in spread(found(estimate, error)).cells])
    assert np.std(drawn) < np.std(estimate)
    assert np.mean((drawn - truth) ** 2) < np.mean((estimate - truth) ** 2)


def test_cells_that_agree_have_no_spread_and_a_new_one_is_like_them():
    ours = spread(found(np.full(20, 0.3), np.full(20, 0.1)))
    assert between(np.full(20, 0.3), np.full(20, 0.01)) == 0.0
    assert ours.i_square < 0.2 and ours.new.low > 0.1 and ours.above > 0.99


def test_the_order_of_cells_does_not_matter():
    estimate, error, _ = world(2, 12, 0.1)
    order = np.random.default_rng(0).permutation(12)
    first, second = spread(found(estimate, error)), spread(found(estimate[order], error[order]))
    assert first.new == second.new or first.new.low == pytest.approx(second.new.low)
    assert [first.cells[i].estimate for i in order] == pytest.approx(
        [one.estimate for one in second.cells]
    )


def test_one_cell_without_any_error_does_not_break_the_fit():
    ours = spread([Interval(0.1, 0.1, 0.1), *found([0.2, 0.3, 0.1], [0.1, 0.1, 0.1])])
    assert all(np.isfinite([ours.new.low, ours.new.high, ours.tau.high]))


def test_with_two_cells_there_is_a_mean_and_no_spread():
    two = found([0.1, 0.2], [0.1, 0.1])
    assert spread(two) is None and mean_over_cells(two, range(2)).estimate == pytest.approx(0.15)
    with pytest.raises(ValueError, match="needs 2"):
        mean_over_cells(two[:1], range(1))


@pytest.mark.parametrize("tau", [0.0, 0.1])
def test_the_mean_of_twelve_cells_is_covered_by_its_interval_as_often_as_it_says(tau):
    """95 % nominal, three standard errors of 1,000 worlds around 93 to 97."""
    covered = 0
    for seed in range(1000):
        estimate, error, _ = world(seed, 12, tau)
        low, high = mean_over_cells(found(estimate, error), range(12)).interval()
        covered += low <= 0.1 <= high
    assert 0.93 - 0.02 <= covered / 1000 <= 0.97 + 0.02
