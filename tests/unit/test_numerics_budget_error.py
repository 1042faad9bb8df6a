"""What unequal budgets may add to a contrast: by hand, and in worlds where they do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loopscope.numerics.verdict.budget_error import (
    TEXT_SD,
    ArmAtBudgets,
    budget_error,
    log_ratio_sd,
    read_off,
    slopes,
)
from loopscope.numerics.verdict.decision import Evidence, VerdictRules, judge

RULES = VerdictRules(min_difference=0.15, max_arm_cosine=0.98)


def one_strength(rate: float, openings: int = 1000) -> ArmAtBudgets:
    scores = (np.arange(openings) < rate * openings).astype(float)
    return ArmAtBudgets(np.full((1, 4), 0.1), scores[None])


def test_of_one_text_the_ratio_has_the_spread_that_texts_have():
    assert log_ratio_sd(np.array([0.1]), np.array([0.1])) == pytest.approx(TEXT_SD)


def test_the_spread_of_the_ratio_falls_with_the_root_of_the_texts():
    draws = np.random.default_rng(0)
    for sd in (0.1, 0.18, 0.4):
        first, second = draws.lognormal(0, sd / math.sqrt(2), size=(2, 4000))
        assert log_ratio_sd(first, second) == pytest.approx(sd / math.sqrt(4000), rel=0.1)


def test_two_texts_that_agree_by_chance_claim_no_exactness():
    assert log_ratio_sd(np.array([0.1, 0.1]), np.array([0.1, 0.1])) > 0.1


def test_the_stated_spread_is_that_of_many_draws_of_texts():
    draws = np.random.default_rng(1)
    ratios, stated = [], []
    for _ in range(2000):
        texts = draws.lognormal(0, 0.5, size=32)  # what texts have in common makes no difference
        first, second = texts * draws.lognormal(0, 0.18 / math.sqrt(2), size=(2, 32))
        ratios.append(np.log(first.mean() / second.mean()))
        stated.append(log_ratio_sd(first, second))
    assert np.median(stated) == pytest.approx(np.std(ratios), rel=0.1)


def test_an_effect_that_is_not_above_zero_has_no_ratio():
    assert math.isnan(log_ratio_sd(np.array([0.1, -0.1]), np.array([0.1, 0.1])))


def test_the_slope_between_two_strengths_by_hand():
    scores = np.tile([[0.2], [0.5]], 5)
    arm = ArmAtBudgets(np.array([[0.1], [0.3]]), scores)
    assert slopes(arm, None) == pytest.approx([0.3 / math.log(3)] * 2)


def test_a_slope_that_was_seen_flat_by_chance_keeps_its_error():
    scores = np.array([[0.0, 1, 0, 1], [1.0, 0, 1, 0]])
    arm = ArmAtBudgets(np.array([[0.1], [0.3]]), scores)
    differences = scores[1] - scores[0]
    error = differences.std(ddof=1) / math.sqrt(4) / math.log(3)
    assert slopes(arm, None) == pytest.approx([error] * 2)


@pytest.mark.parametrize(
    ("rate", "before"), [(0.5, 0.02), (0.3, 0.0), (0.3, 0.02), (0.9, 0.1), (0.1, 0.1)]
)
def test_one_strength_allows_a_score_in_proportion_and_one_with_log_odds_along_the_norm(
    rate, before
):
    unsteered = one_strength(before).scores[0]
    (slope,) = slopes(one_strength(rate), unsteered)
    assert slope >= rate - before
    if before > 0:
        rise = np.log(rate / (1 - rate)) - np.log(before / (1 - before))
        assert slope >= 0.97 * rate * (1 - rate) * rise / 2


def test_the_error_of_a_contrast_is_spread_times_the_steeper_slope():
    flat, steep = one_strength(0.1), one_strength(0.5)
    none = one_strength(0.1).scores[0]
    found = budget_error(flat, steep, none)
    assert found.slope == pytest.approx(slopes(steep, none)[0])
    assert found.shared_sd == pytest.approx(found.log_ratio_sd * found.slope)


def test_an_arm_is_read_off_between_two_strengths_and_nowhere_else():
    arm = ArmAtBudgets(np.array([[0.4, 0.4], [0.1, 0.1]]), np.array([[0.8, 0.6], [0.2, 0.0]]))
    middle = read_off(arm, 0.2)
    assert not isinstance(middle, str)
    assert middle.scores == pytest.approx([0.5, 0.3])
    assert middle.effects == pytest.approx([0.25, 0.25])
    for end, scores in ((0.1, [0.2, 0.0]), (0.4, [0.8, 0.6])):
        found = read_off(arm, end)
        assert not isinstance(found, str)
        assert found.scores == pytest.approx(scores)
    outside = read_off(arm, 0.5)
    assert isinstance(outside, str)
    assert "from 0.1 to 0.4 nats, and 0.5 lies outside" in outside
    alone = read_off(ArmAtBudgets(arm.effects[:1], arm.scores[:1]), 0.4)
    assert isinstance(alone, str)
    assert "give two strengths" in alone


def share_supported(texts: int, openings: int, worlds: int, aware: bool) -> float:
    """The share of worlds called Supported although all arms do the same at an equal budget.

    Each arm's strength is solved so that its mean effect on the texts is 0.1; on all texts of the
    world it is then another, and the score follows it.
    """
    draws = np.random.default_rng([texts, openings])
    said = 0
    for _ in range(worlds):
        per_text = 0.1 * draws.lognormal(-(0.13**2) / 2, 0.13, size=(3, texts))
        true_log = -np.log(per_text.mean(axis=1) / 0.1)
        effects = 0.1 * per_text / per_text.mean(axis=1, keepdims=True)
        rates = np.clip(0.5 + 0.45 * true_log, 0, 1)
        scores = (draws.random((openings, 3)) < rates).astype(float)
        concept = {name: scores[:, [i]] for i, name in enumerate(("multi", "coarse", "fine"))} | {
            "none": np.zeros((openings, 1))
        }
        arms = {
            name: ArmAtBudgets(effects[[i]], scores[:, i][None])
            for i, name in enumerate(("multi", "coarse", "fine"))
        }
        shared = {
            f"multi-{arm}": budget_error(arms["multi"], arms[arm], np.zeros(openings)).shared_sd
            for arm in ("coarse", "fine")
        }
        evidence = Evidence(
            concept,
            {"coarse~multi": 0.5, "fine~multi": 0.5},
            shared_sd=shared if aware else {},
        )
        said += judge(evidence, RULES).verdict == "Supported"
    return said / worlds


def test_budgets_on_two_texts_made_supported_of_nothing_and_their_error_forbids_it():
    worlds = 120
    assert share_supported(2, 1000, worlds, aware=False) > 0.06
    assert share_supported(2, 1000, worlds, aware=True) <= 0.025


def test_a_slope_of_one_opening_has_no_error_of_its_own():
    arm = ArmAtBudgets(np.array([[0.1], [0.3]]), np.array([[0.2], [0.5]]))
    assert slopes(arm, None) == pytest.approx([0.3 / math.log(3)] * 2)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_no_log_odds_are_taken_of_a_rate_that_was_never_or_always_seen(rate):
    """By hand, with the rate kept 2 % away from 0 and 1."""
    scores = np.full(10, rate)
    arm = ArmAtBudgets(np.full((1, 4), 0.1), scores[None])
    kept = min(max(rate, 0.02), 0.98)
    log_odds = math.log(kept / (1 - kept)) - math.log(0.5 / 0.5)
    expected = max(abs(rate - 0.5), kept * (1 - kept) * abs(log_odds) / 2)
    assert slopes(arm, np.full(10, 0.5)) == pytest.approx([expected])
