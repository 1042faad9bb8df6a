"""The edge test against a slow loop, by hand, under the null and with a planted edge."""

import math

import numpy as np
import pytest
import scipy.stats

from loopscope.numerics.latents.mapping import ActivationColumns, correlations
from loopscope.numerics.latents.permutation import (
    _log_chance_of_best,
    edge_test,
    exchangeable_strata,
    smallest_p,
    token_class,
)
from tests.rows import discover_rows

IS_TARGET = np.arange(40) % 2 == 0


def columns(dense) -> ActivationColumns:
    return ActivationColumns.within_condition(discover_rows(dense, IS_TARGET[: len(dense)]))


def sparse_noise(seed: int, latents: int, prompts: int = 40) -> np.ndarray:
    generator = np.random.default_rng(seed)
    values = generator.exponential(1.0, (prompts, latents))
    return values * (generator.random((prompts, latents)) < 0.5)


def test_the_correlation_within_condition_is_that_of_the_residuals():
    left, right = sparse_noise(0, 3), sparse_noise(1, 4)
    left[IS_TARGET] += 2
    right[IS_TARGET] += 2
    found = correlations(columns(left), columns(right), np.arange(3), np.arange(4))

    def residuals(dense: np.ndarray) -> np.ndarray:
        dense = dense.astype(np.float32).astype(float)
        for rows in (IS_TARGET, ~IS_TARGET):
            dense[rows] -= dense[rows].mean(axis=0)
        return dense

    expected = np.corrcoef(residuals(left), residuals(right), rowvar=False)[:3, 3:]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    marginal = np.corrcoef(left, right, rowvar=False)[:3, 3:]
    assert (np.abs(marginal) > np.abs(found)).all()


def test_p_values_are_those_of_a_slow_loop_over_marginal_correlations(monkeypatch):
    left, right = sparse_noise(2, 1), sparse_noise(3, 6)
    left[IS_TARGET] += 1
    right[IS_TARGET, 0] += 3
    right[:, 1] += left[:, 0]
    permuted = []
    original = np.ascontiguousarray

    def remember(array):
        permuted.append(original(array))
        return permuted[-1]

    monkeypatch.setattr("loopscope.numerics.latents.permutation.np.ascontiguousarray", remember)
    found = edge_test(columns(left), columns(right), 0, 99, seed=4)
    (drawn,) = permuted
    # the drawn columns are the same values in another order within each condition
    for rows in (IS_TARGET, ~IS_TARGET):
        same = np.sort(drawn[rows], axis=0)
        assert (same == same[:, :1]).all()
    means = np.where(IS_TARGET, left[IS_TARGET].mean(), left[~IS_TARGET].mean())
    spread = np.sqrt(((left[:, 0] - means) ** 2).sum())
    worlds = drawn * spread + means[:, None]

    def marginal(x: np.ndarray) -> np.ndarray:
        return np.array([np.corrcoef(x, right[:, fine])[0, 1] for fine in range(6)])

    observed = marginal(left[:, 0])
    expected = [
        (1 + sum(marginal(world)[fine] >= observed[fine] - 1e-9 for world in worlds.T)) / 100
        for fine in range(6)
    ]
    np.testing.assert_allclose(found.alone, expected)
    assert found.alone[1] == 0.01
    assert (found.searched >= found.alone).all()


@pytest.mark.parametrize("bytes_max", [8 * 41, 8 * 200, 2**26])
def test_blocks_change_nothing(bytes_max):
    coarse, fine = columns(sparse_noise(5, 2)), columns(sparse_noise(6, 30))
    whole = edge_test(coarse, fine, 1, 50, seed=0)
    blocked = edge_test(coarse, fine, 1, 50, seed=0, bytes_max=bytes_max)
    np.testing.assert_array_equal(blocked.alone, whole.alone)
    np.testing.assert_array_equal(blocked.searched, whole.searched)


def test_under_the_null_both_p_are_uniform():
    fine = columns(sparse_noise(8, 40))
    many = columns(sparse_noise(7, 300))
    tests = [edge_test(many, fine, latent, 99, seed=1) for latent in range(300)]
    jitter = np.random.default_rng(0).random(300) / 100  # p has steps of 1 / 100
    alone = np.array([test.alone[0] for test in tests]) - jitter
    best = np.array([np.nanmin(test.searched) for test in tests]) - jitter
    assert scipy.stats.kstest(alone, "uniform").pvalue > 0.01
    assert scipy.stats.kstest(best, "uniform").pvalue > 0.01
    # without the correction for the search the best of forty would nearly always look found
    assert (np.array([np.nanmin(test.alone) for test in tests]) <= 0.05).mean() > 0.6


def test_two_latents_that_only_follow_the_condition_are_no_edge():
    left, right = sparse_noise(9, 1), sparse_noise(10, 1)
    left[IS_TARGET] += 5
    right[IS_TARGET] += 5
    rows = [discover_rows(dense, IS_TARGET) for dense in (left, right)]
    marginal = correlations(
        *(ActivationColumns.of(side) for side in rows), np.array([0]), np.array([0])
    )
    assert marginal[0, 0] > 0.8
    assert edge_test(columns(left), columns(right), 0, 199, seed=0).alone[0] > 0.05


def test_what_cannot_be_tested_is_missing():
    left, right = sparse_noise(11, 3), sparse_noise(12, 3)
    left[:, 1] = IS_TARGET  # constant within each condition
    right[:, 1] = IS_TARGET
    right[:, 2] = 0
    right[:4, 2] = 1  # fires on four prompts
    coarse, fine = columns(left), columns(right)
    assert np.isnan(edge_test(coarse, fine, 0, 19, seed=0).alone).tolist() == [False, True, True]
    assert np.isnan(edge_test(coarse, fine, 1, 19, seed=0).searched).all()
    assert np.isnan(edge_test(coarse, fine, 0, 0, seed=0).alone).all()


def test_equal_activations_give_p_one():
    constant = np.ones((40, 1))
    constant[0] = 2
    tied = np.ones((40, 1))
    assert np.isnan(edge_test(columns(constant), columns(tied), 0, 19, seed=0).alone[0])
    single = edge_test(columns(constant), columns(constant), 0, 999, seed=0).alone[0]
    # the one prompt that differs lands where it was in a twentieth of the permutations
    assert single == pytest.approx(1 / 20, abs=0.03)


def test_the_smallest_p_is_that_of_the_best_order_counted_by_hand():
    """Ten prompts of each condition; both latents fire on three target prompts, elsewhere never.

    A permutation puts the three on the fine latent's three places once in 120 times, and sorts
    them like the fine latent's once in six of these.
    """
    is_target = np.arange(20) < 10
    left, right = np.zeros((20, 1)), np.zeros((20, 2))
    left[:3, 0], right[4:7, 0], right[4:7, 1] = [1, 2, 3], [3, 1, 2], [1, 1, 1]
    coarse, fine = (
        ActivationColumns.within_condition(discover_rows(dense, is_target))
        for dense in (left, right)
    )
    found = smallest_p(coarse, fine, 0, np.array([0, 1]), 99)
    np.testing.assert_allclose(found, [(1 + 99 / 720) / 100, (1 + 99 / 120) / 100])


def test_no_edge_gets_less_than_the_smallest_p():
    """The best order is planted: a latent that fires on five prompts with one value, twice."""
    one = np.zeros((40, 1))
    one[:5] = 1
    coarse, fine = columns(one), columns(one)
    least = smallest_p(coarse, fine, 0, np.array([0]), 19_999)[0]
    found = edge_test(coarse, fine, 0, 19_999, seed=0).alone[0]
    # three of twenty and two of twenty land where they were once in 1140 * 190 permutations
    assert least == pytest.approx((1 + 19_999 / (1140 * 190)) / 20_000)
    assert found == pytest.approx(least, abs=3e-4)
    few = smallest_p(columns(one[:12]), columns(one[:12]), 0, np.array([0]), 19_999)[0]
    assert few > 0.003, "three of six and two of six: no number of permutations makes this small"


def test_latents_that_only_follow_the_last_token_are_no_edge_within_its_class():
    """Both latents answer to a word that ends a third of the prompts of either condition."""
    generator = np.random.default_rng(0)
    tokens = np.where(np.arange(40) // 2 % 3 == 0, " is", " the")
    answers = (tokens == " is")[:, None]
    p_whole, p_within = [], []
    for _ in range(40):
        left, right = (answers * 3 + generator.exponential(1, (40, 1)) for _ in range(2))
        coarse, fine = columns(left), columns(right)
        strata = exchangeable_strata(coarse.group, tokens)
        p_whole.append(edge_test(coarse, fine, 0, 99, seed=0).alone[0])
        p_within.append(edge_test(coarse, fine, 0, 99, 0, strata).alone[0])
    assert np.mean(np.array(p_whole) <= 0.05) > 0.9
    assert np.mean(np.array(p_within) <= 0.05) <= 0.15


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (" Paris", "word start"), ("\u2581Paris", "word start"), ("\u0120Paris", "word start"),
        ("ville", "word piece"), ("1789", "digits"), (" 42nd", "digits"), (".", "punctuation"),
        (" \u2014", "punctuation"), ("\n", "punctuation"), ("", "punctuation"),
    ],
)  # fmt: skip
def test_the_class_of_a_token(token, expected):
    assert token_class(token) == expected


def test_a_token_that_ends_many_prompts_is_a_class_of_its_own_in_each_condition():
    group = np.repeat([0, 1], 8)
    tokens = np.array([" of"] * 5 + [" a", ".", " b"] + [" of"] * 4 + [" a", ".", "7", "x"])
    strata = exchangeable_strata(group, tokens)
    assert len(set(strata[:5])) == 1 and strata[5] == strata[7] != strata[0]
    assert strata[8] == strata[12], "four are not enough: a word start like any other"
    assert set(strata[:8]).isdisjoint(strata[8:])
    assert len(set(strata)) == 3 + 4
    assert exchangeable_strata(group, None) is group


def test_whole_groups_are_paired_best_with_the_chance_that_their_ties_allow():
    """By hand: of n! orders those count that change nothing on one side."""
    distinct = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert _log_chance_of_best(distinct, distinct) == pytest.approx(-math.log(6))
    tied = np.array([[1.0, 2.0], [1.0, 2.0], [5.0, 6.0]])
    for left, right in ((tied, distinct), (distinct, tied), (tied, tied)):
        assert _log_chance_of_best(left, right) == pytest.approx(math.log(2) - math.log(6))
    constant = np.ones((3, 2))
    assert _log_chance_of_best(constant, distinct) == pytest.approx(0.0)


def test_the_smallest_p_is_that_of_a_latent_which_no_permutation_reaches_alone_or_searched():
    left = sparse_noise(13, 1)
    right = np.concatenate([left, sparse_noise(14, 3)], axis=1)
    found = edge_test(columns(left), columns(right), 0, 99, seed=0)
    assert (found.alone[0], found.searched[0]) == (0.01, 0.01)
