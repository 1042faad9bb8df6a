"""The strength that brings a wanted effect, on effects whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from loopscope.numerics.steering.budget import (
    BRACKET_TEXTS,
    PASSES_MAX,
    PASSES_OVER_ALL_MAX,
    solve_strengths,
)


def solve(effect, wanted, start=None, strength_max=1e6, floor=None, factors=(1.0,)):
    """Solve for ``effect(cell, strength)``, which is so many times as large on each text."""
    calls = []

    def measure(cells, strengths, texts):
        calls.append(cells.tolist())
        means = np.array([effect(c, s) for c, s in zip(cells, strengths, strict=True)])
        return means[:, None] * np.asarray(factors)[texts]

    wanted = np.asarray(wanted, dtype=np.float64)
    start = np.full(len(wanted), 1.0) if start is None else np.asarray(start)
    found = solve_strengths(
        measure, np.arange(len(factors)), wanted, start, strength_max=strength_max,
        floor=None if floor is None else np.asarray(floor)[:, None] * np.ones(len(factors)),
    )  # fmt: skip
    return found, calls


def test_a_quadratic_effect_is_found_in_two_passes_whatever_its_size():
    factors = [1e-6, 1.0, 1e3]
    found, calls = solve(lambda c, s: factors[c] * s**2, [0.1, 0.1, 0.1], start=[300, 0.3, 0.01])
    assert found.strength == pytest.approx(np.sqrt(0.1 / np.array(factors)), rel=0.01)
    assert found.effect == pytest.approx([0.1] * 3, rel=0.02)
    assert found.passes == len(calls) <= 3


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0, 6.0])
def test_other_powers_are_found_within_two_percent(power):
    found, _ = solve(lambda c, s: s**power, [0.05, 0.5, 5.0])
    assert found.effect == pytest.approx([0.05, 0.5, 5.0], rel=0.02)
    assert found.passes <= 12


def test_an_effect_that_saturates_below_the_wanted_one_is_not_reached():
    found, _ = solve(lambda c, s: 0.3 * s / (1 + s), [0.1, 0.5], strength_max=1e4)
    assert found.effect[0] == pytest.approx(0.1, rel=0.02)
    assert np.isnan(found.strength[1])
    assert np.isnan(found.effect[1])
    assert found.passes <= PASSES_MAX


def test_overflow_counts_as_too_strong():
    found, _ = solve(lambda c, s: s**2 if s < 2 else float("nan"), [1.0], start=[1000.0])
    assert found.effect == pytest.approx([1.0], rel=0.02)


def test_a_step_cannot_be_met_and_says_so():
    found, _ = solve(lambda c, s: 0.0 if s < 3 else 1.0, [0.5])
    assert np.isnan(found.strength[0])
    assert found.passes == PASSES_MAX


def test_solved_cells_are_not_measured_again():
    _, calls = solve(lambda c, s: s if c else s**2, [1.0, 0.5])
    assert calls[0] == [0, 1]
    assert all(cells == [1] for cells in calls[1:])


def test_the_answer_of_a_cell_does_not_depend_on_its_neighbours():
    together, _ = solve(lambda c, s: (c + 1) * s**1.5, [0.2, 0.2, 0.2])
    alone, _ = solve(lambda c, s: 2 * s**1.5, [0.2])
    assert together.strength[1] == pytest.approx(alone.strength[0], rel=1e-9)


def test_an_effect_that_is_too_large_already_at_strength_zero_is_given_up_at_once():
    found, calls = solve(lambda c, s: 0.2 + s**2, [0.1, 0.3, 0.2], floor=np.array([0.2, 0.2, 0.2]))
    assert np.isnan(found.strength[[0, 2]]).all()
    assert found.effect[1] == pytest.approx(0.3, rel=0.02)
    assert all(cells == [1] for cells in calls)


def test_an_effect_that_dips_before_it_rises_is_found_where_it_rises():
    found, _ = solve(lambda c, s: 0.05 * (s - 2) ** 2, [0.5], start=[0.1], floor=np.array([0.2]))
    assert found.strength[0] == pytest.approx(2 + 10**0.5, rel=0.02)


def test_without_a_floor_a_search_for_less_than_there_is_ends_all_the_same():
    found, _ = solve(lambda c, s: 0.2 + s**2, [0.1])
    assert np.isnan(found.strength[0])
    assert found.passes == PASSES_MAX


MANY_TEXTS = tuple(np.random.default_rng(3).lognormal(0.0, 0.3, size=40))


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 4.0])
def test_many_texts_are_bracketed_on_four_and_read_at_most_three_times(power):
    found, calls = solve(lambda c, s: (c + 1) * s**power, [0.05, 0.1, 0.4], factors=MANY_TEXTS)
    assert found.effect == pytest.approx([0.05, 0.1, 0.4], rel=0.02)
    assert found.effects.shape == (3, 40)
    assert found.passes_over_all <= PASSES_OVER_ALL_MAX
    assert found.passes + found.passes_over_all == len(calls)


def test_what_is_wanted_holds_over_all_texts_and_not_over_the_four():
    factors = (2.0,) * BRACKET_TEXTS + (1.0,) * 36
    found, _ = solve(lambda c, s: s**2, [0.1], factors=factors)
    assert found.effect == pytest.approx([0.1], rel=0.02)
    assert found.effects[0, :BRACKET_TEXTS].mean() == pytest.approx(0.182, rel=0.03)


def test_a_cell_that_does_not_settle_in_three_passes_over_all_texts_is_not_reached():
    factors = (1.0,) * BRACKET_TEXTS + (1e-9,) * 36
    found, _ = solve(lambda c, s: 1.0 if s > 2 else s**2, [0.5], factors=factors)
    assert np.isnan(found.strength[0])
    assert np.isnan(found.effects[0]).all()


def test_the_search_is_a_function_of_what_is_measured_and_of_the_texts():
    first, _ = solve(lambda c, s: (c + 1) * s**1.7, [0.1, 0.2], factors=MANY_TEXTS)
    again, _ = solve(lambda c, s: (c + 1) * s**1.7, [0.1, 0.2], factors=MANY_TEXTS)
    assert first.strength.tolist() == again.strength.tolist()
    assert first.effects.tolist() == again.effects.tolist()
