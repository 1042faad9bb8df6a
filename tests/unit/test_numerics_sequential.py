"""Verdicts that may be asked for after every opening: bets by hand, and errors at any stop."""

import numpy as np
import pytest

from loopscope.numerics.verdict.sequential import (
    NEEDED,
    PRIOR_VARIANCE,
    STAKE_MAX,
    WordE,
    capital,
    group_differences,
    word_e,
    word_so_far,
)

NULLS = (0.0, -0.15, 0.15)


def capital_by_hand(differences, null):
    """Bet opening after opening, with nothing but what came before."""
    found, money, seen = [], 1.0, []
    squares = 0.0
    for difference in differences:
        stake = 0.0
        if seen:
            excess = sum(seen) / (len(seen) + 1) - null
            variance = (PRIOR_VARIANCE + squares) / (len(seen) + 1)
            stake = min(max(excess / (variance + excess**2), 0.0), STAKE_MAX / (1 + null))
        money *= 1 + stake * (difference - null)
        found.append(money)
        seen.append(difference)
        squares += (difference - sum(seen) / (len(seen) + 1)) ** 2
    return found


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("seed", range(4))
def test_the_capital_is_that_of_bets_one_after_the_other(seed, null):
    differences = np.random.default_rng(seed).choice([-1.0, -0.5, 0.0, 0.5, 1.0], size=60)
    np.testing.assert_allclose(
        capital(differences, null), capital_by_hand(differences, null), rtol=1e-12
    )


@pytest.mark.parametrize("null", NULLS)
def test_no_stake_knows_the_outcome_that_it_is_set_on(null):
    differences = np.random.default_rng(0).uniform(-1, 1, 30)
    path = capital(differences, null)
    for changed in range(30):
        other = differences.copy()
        other[changed] = -differences[changed]
        np.testing.assert_array_equal(capital(other, null)[:changed], path[:changed])


@pytest.mark.parametrize("null", NULLS)
def test_capital_is_never_lost_whole(null):
    assert (capital(np.array([1.0] * 20 + [-1.0] * 40), null) > 0).all()


def exact_mean(null, depth=10):
    """Return the mean capital over all paths of outcomes -1 and 1 whose mean is the null."""
    paths = np.array(np.meshgrid(*[[-1.0, 1.0]] * depth, indexing="ij")).reshape(depth, -1).T
    chance = np.where(paths > 0, (1 + null) / 2, (1 - null) / 2).prod(axis=1)
    return chance @ capital(paths, null)


@pytest.mark.parametrize("null", NULLS)
def test_under_the_null_capital_is_expected_to_stay_what_it_was(null):
    np.testing.assert_allclose(exact_mean(null), 1.0, rtol=1e-12)


def scores(rng, worlds, openings, rates):
    difficulty = rng.normal(0, 0.5, (worlds, openings))
    odds = np.log(np.array(rates) / (1 - np.array(rates)))
    chance = 1 / (1 + np.exp(-(odds[:, None, None] + difficulty)))
    return (rng.random(chance.shape) < chance).astype(float)


def said(paths, word):
    number = list(NEEDED).index(word)
    return (paths[number] >= NEEDED[word]).any(axis=-1).mean()


@pytest.mark.parametrize(
    ("rates", "word", "level"),
    [
        ((0.2, 0.45, 0.45), "Supported", 0.025),
        ((0.45, 0.45, 0.45), "Refuted", 0.025),
        ((0.45, 0.45, 0.61), "NoPracticalDifference", 0.05),
        ((0.2, 0.45, 0.29), "NoPracticalDifference", 0.05),
    ],
)
def test_a_word_that_is_wrong_is_hardly_ever_said_at_any_look(rates, word, level):
    coarse, fine, multi = scores(np.random.default_rng(1), 4_000, 300, rates)
    assert said(word_e(multi - coarse, multi - fine, 0.15), word) <= level


@pytest.mark.parametrize(
    ("rates", "word"),
    [
        ((0.2, 0.45, 0.75), "Supported"),
        ((0.2, 0.75, 0.45), "Refuted"),
        ((0.2, 0.45, 0.45), "NoPracticalDifference"),
    ],
)
def test_a_word_that_is_right_is_said_in_the_end(rates, word):
    coarse, fine, multi = scores(np.random.default_rng(2), 400, 1_500, rates)
    assert said(word_e(multi - coarse, multi - fine, 0.15), word) > 0.9


def test_what_was_said_once_stays_said():
    won = np.array([1.0] * 30 + [-1.0] * 30)
    found = word_so_far(won, won, 0.15)
    assert found.word == word_so_far(won[:30], won[:30], 0.15).word == "Supported"
    assert WordE(39.9, 1.0, 19.9).word == "Inconclusive"
    assert word_so_far(won[:0], won[:0], 0.15).word == "Inconclusive"


def test_a_group_is_one_unit():
    differences, group = np.array([1.0, 0.0, -1.0, 1.0]), np.array([5, 2, 5, 2])
    np.testing.assert_array_equal(group_differences(differences, group), [0.0, 0.5])
    np.testing.assert_array_equal(group_differences(differences, None), differences)
