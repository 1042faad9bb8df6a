"""Paired comparisons against known answers, by hand, by theory and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from loopscope.numerics.paired import (
    Contrast,
    bootstrap_interval,
    detectable_difference,
    paired_contrast,
    prompts_needed,
    sign_flip,
)


def noise(n, sd, seed=0):
    return np.random.Generator(np.random.Philox(key=seed)).normal(0, sd, n)


def test_the_bootstrap_interval_is_about_the_normal_one():
    values = noise(400, 1.0)
    low, high = bootstrap_interval(values, seed=1)
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_few_prompts_get_the_width_of_a_t_interval_not_of_a_normal_one():
    values = noise(10, 1.0, seed=5)
    low, high = bootstrap_interval(values, seed=1)
    t_low, t_high = scipy.stats.t.interval(0.95, 9, values.mean(), scipy.stats.sem(values))
    assert high - low == pytest.approx(t_high - t_low, rel=0.08)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(11)
    studies = 150
    hits = 0
    for study in range(studies):
        low, high = bootstrap_interval(rng.normal(0.1, 0.6, 30), seed=study)
        hits += low <= 0.1 <= high
    assert hits >= scipy.stats.binom.ppf(0.001, studies, 0.95)


def test_the_bootstrap_is_its_own_generator():
    np.random.seed(0)
    first = bootstrap_interval(noise(20, 1), seed=3)
    np.random.seed(1)
    assert bootstrap_interval(noise(20, 1), seed=3) == first
    assert all(math.isnan(x) for x in bootstrap_interval(np.zeros(0), seed=3))


def test_the_sign_flip_p_of_three_prompts_is_counted_by_hand():
    # means of +-1 +-2 +-3 that reach 6/3: one of eight; that stay below or at 6/3: all
    assert sign_flip(np.array([1.0, 2.0, 3.0]), seed=0) == (1 / 8, 1.0)
    # 1 + 2 - 3 = 0 is reached by five of eight patterns from above, and from below
    assert sign_flip(np.array([1.0, 2.0, -3.0]), seed=0) == (5 / 8, 5 / 8)


def test_no_difference_at_all_is_no_evidence():
    assert sign_flip(np.zeros(40), seed=0) == (1.0, 1.0)


def test_random_flips_agree_with_the_exact_ones_and_with_the_t_test():
    values = 0.3 + noise(60, 1.0, seed=2)
    greater, less = sign_flip(values, seed=4)
    expected = scipy.stats.ttest_1samp(values, 0, alternative="greater").pvalue
    assert greater == pytest.approx(expected, abs=0.01)
    assert greater + less == pytest.approx(1.0, abs=1e-3)


def test_p_values_are_uniform_when_there_is_no_difference():
    rng = np.random.default_rng(3)
    found = [sign_flip(rng.normal(0, 1, 20), seed=i)[0] for i in range(120)]
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.001


def test_about_126_prompts_detect_a_quarter_of_an_sd():
    contrast = Contrast("x", 0, 0, 0, 0, 0, 126, 0.6, 1, 1)
    assert prompts_needed(contrast, 0.15) == 126
    assert detectable_difference(contrast) == pytest.approx(0.15, abs=1e-3)


def test_openings_that_all_agree_are_bounded_by_three_over_n():
    same = paired_contrast("x", np.full(10, 0.5), np.full(10, 0.5), seed=0)
    assert (same.low, same.high) == pytest.approx((-0.3, 0.3))
    assert detectable_difference(same) == pytest.approx(0.3)


def test_a_contrast_without_prompts_is_refused():
    with pytest.raises(ValueError, match="at least one prompt"):
        paired_contrast("x", np.zeros(0), np.zeros(0), seed=0)
