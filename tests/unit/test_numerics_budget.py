"""The strength that brings a wanted effect, on effects whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from loopscope.numerics.budget import PASSES_MAX, solve_strengths


def solve(effect, wanted, start=None, strength_max=1e6, floor=None):
    calls = []

    def measure(cells, strengths):
        calls.append(cells.tolist())
        return np.array([effect(c, s) for c, s in zip(cells, strengths, strict=True)])

    wanted = np.asarray(wanted, dtype=np.float64)
    start = np.full(len(wanted), 1.0) if start is None else np.asarray(start)
    found = solve_strengths(measure, wanted, start, strength_max=strength_max, floor=floor)
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
