"""Probe, collateral change, variety and distribution shift at anchors and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import torch

from loopscope.numerics.model.causal_model import OutputHead
from loopscope.numerics.steering.outcomes import (
    LinearProbe,
    auroc_interval,
    changed_activation,
    distinct_share,
    probe_auroc,
    probe_interval,
)
from loopscope.numerics.steering.shift import token_shifts


def rows(n, shift, seed, width=8):
    generator = np.random.Generator(np.random.Philox(key=seed))
    noise = generator.normal(size=(n, width)) * np.linspace(0.5, 3, width)
    return noise + shift


def test_a_probe_tells_separated_conditions_apart_on_new_rows():
    probe = LinearProbe.fit(rows(100, 2.0, 1), rows(100, -2.0, 2))
    assert probe.score(rows(50, 2.0, 3)).min() > 0.9
    assert probe.score(rows(50, -2.0, 4)).max() < 0.1


def test_a_probe_between_equal_conditions_says_one_half_and_has_auroc_one_half():
    one, other = rows(200, 0.0, 1), rows(200, 0.0, 2)
    assert probe_auroc(one, other, seed=0) == pytest.approx(0.5, abs=0.08)
    midpoint = (one.mean(axis=0) + other.mean(axis=0)) / 2
    assert LinearProbe.fit(one, other).score(midpoint[None]) == pytest.approx([0.5])


def test_a_probe_is_judged_on_rows_that_it_has_not_seen():
    assert probe_auroc(rows(20, 0, 1, width=400), rows(20, 0, 2, width=400), seed=0) < 0.75


def test_the_probe_of_one_dimension_by_hand():
    probe = LinearProbe.fit(np.array([[3.0], [5.0]]), np.array([[-1.0], [1.0]]))
    # means 4 and 0, pooled variance 2 (shrinkage leaves one dimension alone): weight 2, bias -4
    assert probe.weight.tolist() == pytest.approx([2.0])
    assert probe.bias == pytest.approx(-4.0)


def test_too_few_prompts_make_no_probe():
    with pytest.raises(ValueError, match="two prompts"):
        LinearProbe.fit(np.zeros((1, 3)), np.zeros((5, 3)))
    assert math.isnan(probe_auroc(rows(9, 0, 1), rows(50, 0, 2), seed=0))


def test_the_interval_of_an_auroc_has_a_width_even_where_all_prompts_are_told_apart():
    low, high = auroc_interval(1.0, 20, 20)
    assert (high, low) == (1.0, pytest.approx(0.899, abs=0.001))
    assert auroc_interval(1.0, 10, 10)[0] < low < auroc_interval(1.0, 100, 100)[0]
    assert auroc_interval(0.0, 20, 20) == pytest.approx((0.0, 1 - low))
    assert all(map(math.isnan, auroc_interval(float("nan"), 5, 5)))


@pytest.mark.parametrize(("shift", "prompts"), [(0.0, 20), (0.6, 20), (1.5, 20), (0.6, 60)])
def test_the_interval_of_an_auroc_covers_the_truth(shift, prompts):
    truth = scipy.stats.norm.cdf(shift / np.sqrt(2))
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(1_500):
        target = generator.normal(shift, 1, prompts)[:, None]
        neutral = generator.normal(0, 1, prompts)[None, :]
        low, high = auroc_interval(float((target > neutral).mean()), prompts, prompts)
        covered.append(low <= truth <= high)
    assert 0.93 <= np.mean(covered) <= 0.98


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_interval_of_a_probe_covers_what_probes_of_other_prompts_reach(shift):
    """The plain interval does not: folds share what their probes were fitted to."""
    found = [
        probe_auroc(rows(30, shift, 2 * seed), rows(30, 0.0, 2 * seed + 1), seed)
        for seed in range(200)
    ]

    def coverage(interval) -> float:
        low, high = np.transpose([interval(auroc, 30, 30) for auroc in found])
        return float(((low <= np.mean(found)) & (np.mean(found) <= high)).mean())

    assert 0.93 <= coverage(probe_interval) <= 0.99
    assert coverage(auroc_interval) < 0.92


def test_changed_activation_by_hand_leaves_the_targets_out():
    after = scipy.sparse.csr_array([[2.0, 0, 5], [0, 1, 4]])
    before = scipy.sparse.csr_array([[9.0, 3, 4], [0, 0, 0]])
    assert changed_activation(after, before, [0]) == (pytest.approx(3 + 1 + 1 + 4), 7.0)
    assert changed_activation(before, before, []) == (0.0, 16.0)
    assert changed_activation(after, after[:, :] * 0, [0, 1, 2]) == (0.0, 0.0)


def test_distinct_share_by_hand():
    assert distinct_share([1, 2, 1, 2, 1]) == pytest.approx(2 / 4)
    assert distinct_share([1, 2, 3]) == 1.0
    assert math.isnan(distinct_share([1]))


def test_a_shift_by_hand():
    head = OutputHead(torch.eye(12)[:, :12])
    before = torch.arange(12, 0, -1).float()
    after = before.clone()
    after[11] = 20.0
    ((rows_of_cell,),) = token_shifts(head, torch.stack([before, after])[None])
    first = rows_of_cell[0]
    assert (first.token, first.rank_before, first.rank_after) == (11, 12, 1)
    assert first.new_arrival
    weights = torch.softmax(before.double(), dim=0)
    assert first.probability_before == pytest.approx(float(weights[11]), rel=1e-9)
    # the old top ten stay listed although the last of them fell out
    assert {row.token for row in rows_of_cell} == {*range(10), 11}
    assert [row.rank_after for row in rows_of_cell] == sorted(r.rank_after for r in rows_of_cell)
    assert sum(row.new_arrival for row in rows_of_cell) == 1


def test_an_unchanged_distribution_has_no_arrivals_and_equal_sides():
    head = OutputHead(torch.randn(30, 4, generator=torch.Generator().manual_seed(0)))
    state = torch.ones(1, 4)
    ((rows_of_cell,),) = token_shifts(head, torch.cat([state, state])[None])
    assert [row.rank_after for row in rows_of_cell] == list(range(1, 11))
    assert all(r.rank_before == r.rank_after for r in rows_of_cell)
    assert all(r.probability_before == r.probability_after for r in rows_of_cell)


def test_equal_logits_rank_by_token():
    head = OutputHead(torch.zeros(12, 3))
    ((rows_of_cell,),) = token_shifts(head, torch.zeros(2, 3)[None])
    ranks = {row.token: row.rank_after for row in rows_of_cell}
    assert all(rank == token + 1 for token, rank in ranks.items())
