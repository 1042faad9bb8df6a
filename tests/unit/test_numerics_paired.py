"""Paired comparisons against known answers: by hand, by theory, by brute force, by simulation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import scipy.stats

from loopscope.numerics.statistics.lattice import Law, bootstrap_law, lattice, sign_flip_law
from loopscope.numerics.statistics.paired import (
    Z_POWER_80,
    detectable_difference,
    openings_without_a_case,
    paired_contrast,
    rate_interval,
    sign_flip,
    unseen_bound,
)
from loopscope.numerics.statistics.resampling import Resampled

EIGHT_BETTER_ONE_WORSE = np.array([1.0] * 8 + [0.0] * 11 + [-1.0])


def noise(n, sd, seed=0):
    return np.random.Generator(np.random.Philox(key=seed)).normal(0, sd, n)


def bootstrap_interval(values, group=None, blur_sd=0.0):
    return Resampled.of(values, group=group, blur_sd=blur_sd).interval(0.95)


def law_of(law):
    return {round(x, 9): p for x, p in zip(law.points, law.mass, strict=True) if p > 1e-12}


def test_the_bootstrap_law_is_that_of_all_resamples():
    values = np.array([0.0, 0.5, 0.5, -1.0])
    means = [sum(drawn) / 4 for drawn in product(values.tolist(), repeat=4)]
    expected = {round(x, 9): means.count(x) / len(means) for x in set(means)}
    assert law_of(bootstrap_law(values)) == pytest.approx(expected)


def test_the_sign_flip_law_is_that_of_all_patterns():
    values = np.array([1.0, 2.0, 2.0, -0.5])
    means = [float(np.dot(signs, values)) / 4 for signs in product((1, -1), repeat=4)]
    expected = {round(x, 9): means.count(x) / len(means) for x in set(means)}
    assert law_of(sign_flip_law(values)) == pytest.approx(expected)


def test_scores_of_several_samples_lie_on_their_lattice_and_nats_on_a_fine_one():
    counts, step = lattice(np.array([-1 / 3, 0.0, 0.5]), reach=20.0)
    assert (counts.tolist(), step) == ([-2, 0, 3], pytest.approx(1 / 6))
    nats = noise(20, 1.0)
    counts, step = lattice(nats, reach=20.0)
    assert np.abs(counts * step - nats).max() <= step / 2 < 0.01


def test_the_bootstrap_interval_is_about_the_normal_one():
    values = noise(400, 1.0)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


@pytest.mark.parametrize("n", [2_000, 50_000, 100_000])
def test_very_many_openings_have_the_normal_interval_and_p(n):
    rng = np.random.default_rng(n)
    for values in (
        rng.integers(-20, 21, n) / 20,
        np.r_[1.0, rng.choice([-0.05, 0.0, 0.05], n - 1)],
    ):
        error = values.std() / math.sqrt(n)
        z = values.mean() / error
        low, high = bootstrap_interval(values)
        bounds = values.mean() + 1.96 * error * np.r_[-1, 1]
        assert (low, high) == pytest.approx(bounds, abs=error / 5)
        assert sign_flip(values)[0] == pytest.approx(scipy.stats.norm.sf(z), abs=0.02)


def test_a_small_spread_far_from_zero_is_seen():
    values = 1000 + noise(40, 1e-3)
    low, high = bootstrap_interval(values)
    half = 2.02 * values.std(ddof=1) / math.sqrt(40)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_few_openings_get_the_width_of_a_t_interval_not_of_a_normal_one():
    values = noise(10, 1.0, seed=5)
    low, high = bootstrap_interval(values)
    t_low, t_high = scipy.stats.t.interval(0.95, 9, values.mean(), scipy.stats.sem(values))
    assert high - low == pytest.approx(t_high - t_low, rel=0.08)


def test_an_error_that_all_openings_share_widens_the_interval_as_variances_add():
    values = noise(400, 1.0)
    low, high = bootstrap_interval(values, blur_sd=0.05)
    half = 1.96 * math.hypot(values.std(ddof=1) / 20, 0.05)
    assert (high - low) / 2 == pytest.approx(half, rel=0.02)


def test_openings_that_are_copies_of_one_another_count_once():
    values = noise(12, 1.0)
    group = np.repeat(np.arange(12), 10)
    copied = bootstrap_interval(np.repeat(values, 10), group=group)
    assert copied == pytest.approx(bootstrap_interval(values), abs=1e-3)
    assert sign_flip(np.repeat(values, 10), group) == pytest.approx(sign_flip(values), abs=1e-3)


def test_groups_of_unequal_size_weigh_as_many_openings_as_they_have():
    values = np.array([1.0, 1.0, 1.0, 0.0, -1.0])
    group = np.array([0, 0, 0, 1, 2])
    contrast = paired_contrast("x", values, np.zeros(5), group=group)
    assert contrast.estimate == pytest.approx(0.4)
    assert contrast.groups == 3
    # sums 3, 0 and -1: of the eight sign patterns four reach 2 (3+1, 3-1 with either sign of 0)
    assert contrast.p_greater == pytest.approx(4 / 8)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(11)
    studies = 300
    hits = 0
    for _ in range(studies):
        scores = rng.binomial(3, [[0.5], [0.35]], (2, 30)) / 3
        contrast = paired_contrast("x", *scores, unit=1 / 3)
        hits += contrast.low <= 0.15 <= contrast.high
    assert hits >= scipy.stats.binom.ppf(0.001, studies, 0.95)


def test_rare_hits_are_covered_too():
    """Of two arms at 0.05 the plain bootstrap holds 0 in three of four studies of 20 openings."""
    rng = np.random.default_rng(12)
    hits = 0
    for _ in range(200):
        scores = (rng.random((2, 20)) < 0.05).astype(float)
        contrast = paired_contrast("x", *scores, unit=1.0)
        hits += contrast.low <= 0 <= contrast.high
    assert hits >= 190


def test_the_sign_flip_p_of_three_openings_is_counted_by_hand():
    # means of +-1 +-2 +-3 that reach 6/3: one of eight; that stay below or at 6/3: all
    assert sign_flip(np.array([1.0, 2.0, 3.0])) == pytest.approx((1 / 8, 1.0))
    # 1 + 2 - 3 = 0 is reached by five of eight patterns from above, and from below
    assert sign_flip(np.array([1.0, 2.0, -3.0])) == pytest.approx((5 / 8, 5 / 8))


def test_no_difference_at_all_is_no_evidence():
    assert sign_flip(np.zeros(40)) == (1.0, 1.0)


def test_sign_flips_of_many_openings_agree_with_the_t_test():
    values = 0.3 + noise(60, 1.0, seed=2)
    greater, less = sign_flip(values)
    expected = scipy.stats.ttest_1samp(values, 0, alternative="greater").pvalue
    assert greater == pytest.approx(expected, abs=0.01)
    assert greater + less == pytest.approx(1.0, abs=0.01)


def test_p_values_are_uniform_when_there_is_no_difference():
    rng = np.random.default_rng(3)
    found = [sign_flip(rng.normal(0, 1, 20))[0] for _ in range(60)]
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.001


@pytest.mark.parametrize(("n", "span"), [(10, 1.0), (40, 2.0)])
def test_openings_that_all_agree_are_bounded_by_what_was_not_seen(n, span):
    same = paired_contrast("x", np.full(n, 0.5), np.full(n, 0.5), span=span)
    bound = span * (1 - 0.025 ** (1 / n))
    assert (same.low, same.high) == pytest.approx((-bound, bound))
    assert unseen_bound(400) == pytest.approx(3.69 / 400, rel=0.01)
    assert unseen_bound(400, 0.90) == pytest.approx(3.0 / 400, rel=0.01)
    assert detectable_difference(same) == pytest.approx(unseen_bound(n))


def test_what_nothing_bounds_is_neither_cut_nor_bounded():
    nats = paired_contrast("x", np.array([5.0, 3.0, 4.0, 6.0]), np.zeros(4), span=None)
    assert nats.high > 4.5
    same = paired_contrast("x", np.full(4, 3.0), np.zeros(4), span=None)
    assert math.isnan(same.low)
    assert math.isnan(same.high)


def test_a_contrast_without_openings_is_refused():
    with pytest.raises(ValueError, match="at least one opening"):
        paired_contrast("x", np.zeros(0), np.zeros(0))


@pytest.mark.parametrize("hits", [0, 1, 7, 19, 20])
def test_one_sample_an_opening_has_wilsons_interval(hits):
    scores = np.repeat([1.0, 0.0], [hits, 20 - hits])[:, None]
    expected = scipy.stats.binomtest(hits, 20).proportion_ci(method="wilson")
    assert rate_interval(scores) == pytest.approx((expected.low, expected.high))


def test_samples_that_say_the_same_as_their_opening_add_nothing():
    alike = np.repeat([[1.0], [0.0]], [9, 11], axis=0)
    low, high = rate_interval(np.repeat(alike, 5, axis=1))
    once = rate_interval(alike)
    assert high - low == pytest.approx(once[1] - once[0], rel=0.1)
    independent = np.tile([1.0, 0.0, 0.0, 1.0, 0.0], (20, 1))
    narrow = rate_interval(independent)
    assert narrow[1] - narrow[0] < high - low


def test_an_arm_that_never_hits_may_still_hit():
    low, high = rate_interval(np.zeros((20, 3)))
    assert low == 0
    assert 0.1 < high < 0.25


def test_a_long_law_is_that_of_one_convolution_after_another():
    values = np.repeat([-1.0, -1 / 3, 0.0, 2 / 3, 1.0], [5, 11, 40, 9, 2])
    once = np.bincount(np.rint(3 * values).astype(int) + 3) / len(values)
    resampled, flipped = np.ones(1), np.ones(1)
    for value in values:
        resampled = np.convolve(resampled, once)
        sign = np.zeros(2 * abs(round(3 * value)) + 1)
        np.add.at(sign, [0, -1], 0.5)
        flipped = np.convolve(flipped, sign)
    for law, mass in ((bootstrap_law(values), resampled), (sign_flip_law(values), flipped)):
        reach = (len(mass) - 1) // 2
        expected = dict(zip(range(-reach, reach + 1), mass, strict=True))
        places = np.rint(law.points * 3 * len(values)).astype(int)
        found = dict(zip(places.tolist(), law.mass, strict=True))
        assert max(abs(found.get(k, 0.0) - p) for k, p in expected.items()) < 1e-14


@pytest.mark.parametrize("shared_sd", [0.0, 0.03])
@pytest.mark.parametrize("groups", [5, 12, None])
def test_the_p_of_an_interval_is_the_level_at_which_it_ends_there(groups, shared_sd):
    values = np.random.default_rng(4).choice([-1.0, 0.0, 1.0], 60, p=[0.2, 0.4, 0.4])
    group = None if groups is None else np.arange(60) % groups
    law = Resampled.of(values, group=group, unit=1.0, blur_sd=shared_sd)
    low, high = law.interval(0.95)
    step = 0.0 if groups == 5 or shared_sd else 1.01 / 60
    assert law.p_above(low - step - 1e-9) <= 0.025 + 1e-6
    assert law.p_above(low + 1e-9) >= 0.025 - 1e-6
    assert law.p_below(high + step + 1e-9) <= 0.025 + 1e-6
    assert law.p_below(high - 1e-9) >= 0.025 - 1e-6


def test_a_difference_never_seen_has_the_p_of_its_bound():
    same = paired_contrast("x", np.full(40, 0.5), np.full(40, 0.5), margin=0.15)
    assert same.p_above_margin == same.p_below_margin == pytest.approx(0.85**40)
    edge = unseen_bound(40)
    at_edge = paired_contrast("x", np.full(40, 0.5), np.full(40, 0.5), margin=edge)
    assert at_edge.p_below_margin == pytest.approx(0.025)
    assert same.p_above_zero == same.p_below_zero == 1.0


@pytest.mark.parametrize("groups", [None, 15])
def test_an_error_that_all_openings_share_weakens_the_sign_flip_test(groups):
    """Far apart openings and error add as variances do; whole groups keep the openings' scale."""
    values = noise(120, 0.5) + 0.15
    group = None if groups is None else np.arange(120) % groups
    sums = values if group is None else np.bincount(group, weights=values)
    error = math.hypot(math.sqrt(float(sums @ sums)) / 120, 0.08)
    expected = scipy.stats.norm.sf(values.mean() / error)
    assert sign_flip(values, group, 0.08)[0] == pytest.approx(expected, abs=0.003)
    assert sign_flip(values, group)[0] < expected / 3


def test_two_values_have_the_interval_of_students_t():
    low, high = bootstrap_interval(np.array([0.0, 1.0]))
    expected = scipy.stats.t.interval(0.95, 1, 0.5, 0.5)
    assert (low, high) == pytest.approx(expected)


def test_samples_of_few_openings_count_as_the_spread_between_openings_says():
    """By hand: the effective number of trials, and the quantile of t of the openings."""
    scores = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    rate = scores.mean()
    error = scores.mean(axis=1).var(ddof=1) / 3
    trials = rate * (1 - rate) / error
    z = scipy.stats.t.ppf(0.975, 2)
    middle = (rate + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(rate * (1 - rate) / trials + (z / trials) ** 2 / 4)
    assert rate_interval(scores) == pytest.approx((max(0, middle - half), min(1, middle + half)))


def test_so_many_openings_without_a_case_allow_no_larger_share():
    assert openings_without_a_case(1.0) == openings_without_a_case(1.5) == 2
    assert openings_without_a_case(0.99) == 2
    n = openings_without_a_case(0.1)
    assert 0.9**n <= 0.025 < 0.9 ** (n - 1)


def test_without_a_score_a_rate_has_no_interval():
    assert all(math.isnan(bound) for bound in rate_interval(np.zeros((0, 1))))


def test_values_that_all_agree_leave_no_doubt_about_their_mean():
    alike = Resampled.of(np.full(3, 0.5))
    assert alike.interval(0.95) == (0.5, 0.5)
    assert (alike.p_above(0.4), alike.p_above(0.5), alike.p_above(0.6)) == (0.0, 1.0, 1.0)
    assert (alike.p_below(0.4), alike.p_below(0.5), alike.p_below(0.6)) == (1.0, 1.0, 0.0)


def test_the_law_of_differences_that_are_all_below_zero_mirrors_that_of_their_opposites():
    values = np.array([0.1234567, 0.7654321, 1.2345671])
    above, below = bootstrap_law(values), bootstrap_law(-values)
    assert len(above.mass) == len(below.mass)
    for tail in (0.025, 0.2, 0.4):
        low, high = above.interval(tail)
        assert below.interval(tail) == pytest.approx((-high, -low), abs=1e-6)


def test_where_openings_do_not_differ_and_nothing_bounds_the_outcome_nothing_is_surely_above():
    found = paired_contrast("a-b", np.full(5, 0.3), np.zeros(5), span=None)
    assert (found.p_above_zero, found.p_below_zero) == (1.0, 1.0)
    assert math.isnan(found.low) and math.isnan(found.high)


def test_the_power_asked_for_is_the_quantile_of_the_normal_law():
    assert scipy.stats.norm.cdf(Z_POWER_80) == pytest.approx(0.8, abs=1e-4)


def test_a_value_that_a_law_holds_is_among_those_at_least_as_large():
    coin = Law(np.array([0.25, 0.75]), offset=0.0, step=1.0)
    assert (coin.at_least(0.0), coin.at_least(1.0), coin.at_least(2.0)) == (1.0, 0.75, 0.0)
