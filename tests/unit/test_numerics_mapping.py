"""Correlations, cosines, readings and the gate's counts, against numpy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loopscope.numerics.gate.counting import count_children
from loopscope.numerics.gate.rule import (
    READINGS,
    ChildThresholds,
    SelectionThresholds,
    behaves_like_child,
    readings,
    selective_latents,
)
from loopscope.numerics.latents.features import latent_statistics
from loopscope.numerics.latents.mapping import (
    ActivationColumns,
    CosineBlock,
    correlations,
    cosine_bins,
    cosine_block_shape,
    cosine_blocks,
    coverages,
    made_unit,
    pair_correlations,
    top_latents,
)
from loopscope.numerics.latents.neighbours import binned
from loopscope.numerics.steering.directions import arm_directions, summed_direction
from tests.rows import discover_rows


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def test_rows_are_made_unit_in_space_that_is_used_again():
    space = torch.full((700, 5), torch.nan)
    for length in (700, 300):  # more than are scaled at once
        rows = torch.randn(length, 5, generator=torch.Generator().manual_seed(length))
        rows[3] = 0.0
        given = rows.clone()
        found = made_unit(rows, space)
        assert found.data_ptr() == space.data_ptr() and torch.equal(rows, given)
        assert torch.equal(found[3], torch.zeros(5))
        wanted = torch.nn.functional.normalize(rows, dim=1)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


def random_activations(seed: int, latents: int, prompts: int = 40) -> np.ndarray:
    generator = np.random.default_rng(seed)
    values = generator.exponential(1.0, (prompts, latents)) * (
        generator.random((prompts, latents)) < generator.random(latents)
    )
    return values.astype(np.float32)


def columns(dense) -> ActivationColumns:
    return ActivationColumns.of(discover_rows(dense, np.arange(len(dense)) % 2 == 0))


def every(side: ActivationColumns) -> np.ndarray:
    return np.arange(side.latents)


def test_correlations_are_those_of_numpy():
    left, right = random_activations(0, 7), random_activations(1, 23)
    left[:, 3] = 0
    right[:, 5] = 0
    right[:, 6] = 2.5
    coarse, fine = columns(left), columns(right)
    found = correlations(coarse, fine, every(coarse), every(fine))
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.corrcoef(left.astype(float), right.astype(float), rowvar=False)[:7, 7:]
    expected[:, 6] = np.nan
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.isnan(found[3]).all()
    assert np.isnan(found[:, [5, 6]]).all()


def test_a_large_constant_costs_the_correlation_no_digits():
    noise = np.random.default_rng(0).normal(size=(50, 2))
    dense = (13_700 + noise).astype(np.float32)
    side = columns(dense)
    found = correlations(side, side, np.array([0]), np.array([1]))[0, 0]
    assert found == pytest.approx(np.corrcoef(dense.astype(float), rowvar=False)[0, 1], abs=1e-9)


def test_a_constant_that_float64_cannot_average_exactly_is_still_constant():
    side = columns(np.full((37, 1), 0.1))
    assert side.spread[0] == 0


def test_a_latent_correlates_with_itself_and_a_mirror_by_one():
    values = random_activations(2, 1)
    side = columns(np.hstack([values, values.max() - values]))
    found = correlations(side, side, np.array([0]), np.array([0, 1]))
    np.testing.assert_allclose(found, [[1, -1]], atol=1e-12)


def test_coverage_as_counted_by_hand():
    coarse = columns([[1], [2], [0], [0]])
    fine = columns([[1, 0, 0], [0, 0, 1], [3, 0, 0], [0, 0, 0]])
    given_fine, given_coarse = coverages(coarse, fine, np.array([0]))
    np.testing.assert_array_equal(given_fine, [[0.5, np.nan, 1.0]])
    np.testing.assert_array_equal(given_coarse, [[0.5, 0.0, 0.5]])


def test_coverage_of_a_silent_coarse_latent_is_missing_one_way():
    given_fine, given_coarse = coverages(columns([[0], [0]]), columns([[1], [0]]), np.array([0]))
    assert given_fine[0, 0] == 0
    assert np.isnan(given_coarse[0, 0])


def decoders() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = 5 * torch.randn(9, 6, generator=generator)
    fine = 0.1 * torch.randn(31, 6, generator=generator)
    fine[4] = coarse[2] * 3
    fine[5] = -coarse[2]
    fine[6] = 0
    return coarse, fine


@pytest.mark.parametrize("bytes_max", [4, 100, 2**20])
def test_blocks_of_cosines_cover_the_matrix_once(bytes_max):
    coarse, fine = decoders()
    found = np.full((9, 31), np.nan)
    blocks = list(cosine_blocks(coarse, fine, bytes_max))
    for block in blocks:
        height, width = block.cosines.shape
        assert block.cosines.numel() * 4 <= max(4, bytes_max)
        rows = slice(block.coarse_start, block.coarse_start + height)
        span = slice(block.fine_start, block.fine_start + width)
        assert np.isnan(found[rows, span]).all()
        found[rows, span] = block.cosines.numpy()
    exact = torch.nn.functional.cosine_similarity(
        coarse.double()[:, None], fine.double()[None], dim=-1
    )
    np.testing.assert_allclose(found, exact.numpy(), atol=1e-6)
    assert found[2, 4] == pytest.approx(1)
    assert found[2, 5] == pytest.approx(-1)
    assert (found[:, 6] == 0).all()
    row_block, column_block = cosine_block_shape(9, 31, bytes_max)
    assert len(blocks) == -(-9 // row_block) * -(-31 // column_block)


def test_a_wide_pair_is_compared_within_the_budget():
    row_block, column_block = cosine_block_shape(16_384, 262_144)
    assert row_block * column_block * 4 <= 64 * 2**20
    assert row_block >= 256


def test_the_best_are_falling_and_ties_go_to_the_lower_latent():
    scores = np.array([0.5, np.nan, 0.9, 0.5, 0.9, -1.0, 0.5])
    assert top_latents(scores, 4).tolist() == [2, 4, 0, 3]
    assert top_latents(scores, 99).tolist() == [2, 4, 0, 3, 6, 5]
    assert top_latents(np.full(3, np.nan), 2).tolist() == []


def test_the_histogram_counts_every_fine_latent_once():
    low, high = cosine_bins()
    cosines = torch.tensor([[-1.0, -0.999, 0.301, 0.319, 1.0], [0.0, 0.5, 0.5, 0.5, 0.019]])
    count, other = binned(cosines).numpy()
    assert other[50] == 2
    assert other[75] == 3
    assert len(count) == 100
    assert count.sum() == 5
    assert (low[0], high[-1]) == (-1.0, 1.0)
    np.testing.assert_allclose(high - low, 0.02)
    assert count[0] == 2
    assert count[-1] == 1
    assert count[np.flatnonzero(low == 0.3)[0]] == 2


def test_a_pair_reads_by_where_it_lies():
    cosine = np.array([0.3, 0.29, 0.1, 0.09, 0.3, 0.29, 0.8], dtype=np.float32)
    r = np.array([0.2, 0.2, 0.5, 0.5, 0.19, 0.19, np.nan])
    found = readings(cosine, r, 0.3, 0.1, 0.2).tolist()
    assert set(found) == set(READINGS), "each name is one that is counted"
    assert found == [
        "match",
        "partial",
        "partial",
        "co-occurring",
        "geometric-only",
        "unrelated",
        "unobserved",
    ]


THRESHOLDS = ChildThresholds(cosine_min=0.3, correlation_min=0.2, fine_selectivity_min=0.6)


def test_the_strict_rule_asks_for_more_than_the_cosine():
    r = np.array([0.2, 0.1, np.nan, 0.9])
    selectivity = np.array([0.6, 0.9, 0.9, 0.5])
    cosine_rule = behaves_like_child("cosine", r, selectivity, THRESHOLDS)
    assert cosine_rule.tolist() == [True] * 4
    strict = behaves_like_child("strict", r, selectivity, THRESHOLDS)
    assert strict.tolist() == [True] + [False] * 3


def test_correlations_of_pairs_are_those_of_the_matrix():
    left, right = random_activations(0, 7), random_activations(1, 9)
    left[:, 3] = 0
    is_target = np.arange(40) < 15
    for make in (ActivationColumns.of, ActivationColumns.within_condition):
        coarse, fine = (make(discover_rows(side, is_target)) for side in (left, right))
        whole = correlations(coarse, fine, every(coarse), every(fine))
        rows, places = np.divmod(np.arange(63), 9)
        found = pair_correlations(coarse, fine, rows, places)
        np.testing.assert_allclose(found.reshape(7, 9), whole, atol=1e-9)


@pytest.mark.parametrize("bytes_max", [4, 200, 2**20])
def test_children_of_every_coarse_latent_are_counted_as_pair_by_pair(bytes_max):
    coarse_rows, fine_rows = decoders()
    coarse, fine = columns(random_activations(0, 9)), columns(random_activations(1, 31))
    selectivity = np.random.default_rng(5).uniform(0.3, 1, 31)
    thresholds = ChildThresholds(0.2, 0.05, 0.6)
    found = np.zeros((3, 9), dtype=int)
    for block in cosine_blocks(coarse_rows, fine_rows, bytes_max):
        counts = count_children(block, coarse, fine, selectivity, thresholds)
        span = slice(block.coarse_start, block.coarse_start + len(counts.cosine))
        found[:, span] += [counts.cosine, counts.strict, counts.correlated]
    whole = next(cosine_blocks(coarse_rows, fine_rows)).cosines.numpy()
    r = correlations(coarse, fine, every(coarse), every(fine))
    aligned = whole >= 0.2
    for row, rule in enumerate(("cosine", "strict")):
        behaves = behaves_like_child(rule, r, selectivity, thresholds)
        assert found[row].tolist() == (aligned & behaves).sum(axis=1).tolist()
    assert found[2].tolist() == (aligned & (r >= 0.05)).sum(axis=1).tolist()
    assert found[1].sum() > 0


def test_a_pair_on_every_threshold_is_a_child():
    coarse, fine = columns([[1], [2], [0], [0]]), columns([[1, 0], [0, 3], [3, 0], [0, 0]])
    block = CosineBlock(0, 0, torch.tensor([[0.5, 0.5]]))
    r = correlations(coarse, fine, every(coarse), every(fine))[0]
    for row, latent in enumerate(np.argsort(r)):  # the other one has more, or less
        exactly = ChildThresholds(0.5, r[latent], 0.6)
        counts = count_children(block, coarse, fine, np.array([0.6, 0.6]), exactly)
        assert counts.cosine.tolist() == [2]
        assert counts.correlated.tolist() == counts.strict.tolist() == [2 - row]
    higher = ChildThresholds(0.5000001, -1.0, 0.6)
    assert count_children(block, coarse, fine, np.ones(2), higher).cosine.tolist() == [0]


def test_a_selective_latent_passes_every_threshold_and_an_untested_one_fails():
    is_target = np.arange(20) < 10
    dense = np.zeros((20, 3), dtype=np.float32)
    dense[:10, 0] = 1
    dense[:, 1] = 1
    dense[:4, 2] = 1
    statistics = latent_statistics(discover_rows(dense, is_target))
    thresholds = SelectionThresholds(0.8, 0.3, 0.2, 0.05)
    assert selective_latents(statistics, thresholds).tolist() == [True, False, False]


def test_the_arms_point_where_the_definition_says():
    coarse = torch.tensor([3.0, 0.0])
    children = torch.tensor([[0.0, 2.0], [5.0, 0.0]])
    arms = arm_directions(coarse, children)
    half = 0.5**0.5
    torch.testing.assert_close(arms["coarse"], torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(arms["fine"], torch.tensor([half, half]))
    expected = torch.tensor([1 + half, half])
    torch.testing.assert_close(arms["multi"], expected / expected.norm())


def test_without_children_only_the_coarse_arm_exists():
    assert list(arm_directions(torch.ones(2), torch.zeros(0, 2))) == ["coarse"]


def test_directions_that_cancel_are_missing():
    assert summed_direction(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])) is None
    assert list(arm_directions(torch.ones(2), -torch.ones(1, 2))) == ["coarse", "fine"]
