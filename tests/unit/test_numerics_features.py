"""Per-latent statistics agree with scipy and with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.stats

from loopscope.numerics.latents.features import (
    FIRING_PROMPTS_MIN,
    LatentStatistics,
    aggregate_prompts,
    held_out_statistics,
    latent_statistics,
    mann_whitney,
)
from loopscope.numerics.statistics.multiple_tests import benjamini_hochberg, holm
from tests.rows import discover_rows, held_out_rows


def sparse(rows) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array(np.asarray(rows, dtype=np.float32))


def random_activations(prompts: int = 60, latents: int = 80) -> np.ndarray:
    """Columns of every density, values rounded so that ties are common, some all equal."""
    generator = np.random.default_rng(3)
    density = np.linspace(0, 1, latents)
    values = np.round(generator.exponential(2.0, (prompts, latents)), 1)
    values *= generator.random((prompts, latents)) < density
    values[:, -1] = 1.5
    return values.astype(np.float32)


IS_TARGET = np.arange(60) % 5 < 2


def test_every_column_has_the_u_and_p_of_scipy():
    dense = random_activations()
    auroc, p_value = mann_whitney(sparse(dense), IS_TARGET)
    for latent in range(dense.shape[1] - 1):
        column = dense[:, latent].astype(np.float64)
        if np.ptp(column) == 0:
            continue
        expected = scipy.stats.mannwhitneyu(
            column[IS_TARGET], column[~IS_TARGET], method="asymptotic", use_continuity=True
        )
        pairs = IS_TARGET.sum() * (~IS_TARGET).sum()
        assert auroc[latent] == pytest.approx(expected.statistic / pairs, abs=1e-12)
        assert p_value[latent] == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_a_constant_column_says_nothing(value):
    auroc, p_value = mann_whitney(sparse(np.full((60, 1), value)), IS_TARGET)
    assert (auroc[0], p_value[0]) == (0.5, 1.0)


def test_auroc_as_counted_by_hand():
    # target 3, 0 against neutral 0, 1: wins 3>0, 3>1; tie 0=0; loss 0<1
    is_target = np.array([True, True, False, False])
    auroc, _ = mann_whitney(sparse([[3], [0], [0], [1]]), is_target)
    assert auroc[0] == 2.5 / 4


def test_q_values_are_those_of_scipy_and_untested_entries_do_not_count():
    p_value = np.random.default_rng(0).random(200) ** 3
    p_value[::7] = np.nan
    tested = ~np.isnan(p_value)
    q_value = benjamini_hochberg(p_value)
    expected = scipy.stats.false_discovery_control(p_value[tested], method="bh")
    np.testing.assert_allclose(q_value[tested], expected, rtol=1e-12)
    assert np.isnan(q_value[~tested]).all()


def test_q_values_of_nothing_tested_are_all_missing():
    assert np.isnan(benjamini_hochberg(np.full(3, np.nan))).all()


def test_the_statistics_of_one_latent_as_computed_by_hand():
    is_target = np.array([True] * 4 + [False] * 4)
    statistics = latent_statistics(
        discover_rows([[4], [2], [0], [2], [0], [1], [0], [0]], is_target)
    )
    assert statistics.mean_activation_target[0] == 2.0
    assert statistics.mean_activation_neutral[0] == 0.25
    assert statistics.firing_rate_target[0] == 0.75
    assert statistics.firing_rate_neutral[0] == 0.25
    assert statistics.selectivity[0] == pytest.approx(1.75 / 2.25, abs=1e-6)
    assert statistics.n_firing[0] == 4


def test_largest_activations_and_cohens_d_as_computed_by_hand():
    is_target = np.array([True] * 4 + [False] * 4)
    rows = discover_rows([[4], [2], [0], [2], [0], [1], [0], [0]], is_target)
    statistics = latent_statistics(rows)
    assert (statistics.max_activation_target[0], statistics.max_activation_neutral[0]) == (4, 1)
    # squares about the means 2 and 0.25: 4 + 0 + 4 + 0 and 3 / 16 + 9 / 16, over 6
    assert statistics.cohens_d[0] == pytest.approx(1.75 / np.sqrt((8 + 0.75) / 6), rel=1e-12)


def test_means_and_spreads_of_every_column_are_those_of_dense_float64():
    dense = random_activations().astype(np.float64)
    statistics = latent_statistics(discover_rows(dense, IS_TARGET))
    on, off = dense[IS_TARGET], dense[~IS_TARGET]
    freedom = len(dense) - 2
    pooled = np.sqrt(
        (on.var(axis=0, ddof=1) * (len(on) - 1) + off.var(axis=0, ddof=1) * (len(off) - 1))
        / freedom
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = (on.mean(axis=0) - off.mean(axis=0)) / pooled
    expected[pooled < 1e-12] = np.nan
    np.testing.assert_allclose(statistics.cohens_d, expected, rtol=1e-6)
    assert np.isnan(statistics.cohens_d[[0, -1]]).all()
    np.testing.assert_array_equal(statistics.max_activation_neutral, off.max(axis=0))


def test_hard_negatives_have_columns_of_their_own_and_change_no_other():
    dense = random_activations()
    hard = random_activations()[:30] * 2
    alone = latent_statistics(discover_rows(dense, IS_TARGET))
    both = latent_statistics(discover_rows(dense, IS_TARGET, hard))
    assert set(both.columns()) - set(alone.columns()) == {
        "mean_activation_hard_negative",
        "firing_rate_hard_negative",
        "selectivity_hard_negative",
    }
    for name, column in alone.columns().items():
        np.testing.assert_array_equal(both.columns()[name], column)
    mean = hard.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(both.mean_activation_hard_negative, mean, rtol=1e-6)
    np.testing.assert_allclose(both.firing_rate_hard_negative, (hard > 0).mean(axis=0))
    target = both.mean_activation_target
    expected = (target - mean) / (target + mean + 1e-6)
    np.testing.assert_allclose(both.selectivity_hard_negative, expected, rtol=1e-6)


def test_the_columns_of_a_table_read_back_as_the_statistics():
    statistics = latent_statistics(discover_rows(random_activations(), IS_TARGET))
    table = {"latent": np.arange(80), "aggregation": np.full(80, "last"), **statistics.columns()}
    found = LatentStatistics.of_columns(table)
    assert found.columns().keys() == statistics.columns().keys()
    assert found.mean_activation_hard_negative is None


def test_what_confirms_asks_one_side_only_and_corrects_over_the_columns_given():
    dense = random_activations().astype(np.float64)[:, 20:40]
    found = held_out_statistics(held_out_rows(dense, IS_TARGET))
    expected = [
        scipy.stats.mannwhitneyu(
            column[IS_TARGET], column[~IS_TARGET], method="asymptotic", alternative="greater"
        ).pvalue
        for column in dense.T
    ]
    np.testing.assert_allclose(found.p_value, expected, rtol=1e-6)
    np.testing.assert_allclose(found.q_value, holm(np.array(expected)), rtol=1e-6)


def test_holm_as_computed_by_hand_and_an_untested_entry_counts():
    found = holm(np.array([0.01, 0.04, 0.03, np.nan]))
    np.testing.assert_allclose(found, [0.04, 0.09, 0.09, np.nan])
    assert holm(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).size == 0


def test_a_silent_latent_has_selectivity_zero_and_no_test():
    statistics = latent_statistics(discover_rows(np.zeros((60, 1)), IS_TARGET))
    assert statistics.selectivity[0] == 0
    assert statistics.auroc[0] == 0.5
    assert np.isnan(statistics.p_value[0])
    assert np.isnan(statistics.q_value[0])


def test_only_latents_that_fire_on_enough_prompts_are_tested():
    dense = np.zeros((60, 2))
    dense[: FIRING_PROMPTS_MIN - 1, 0] = 1
    dense[:FIRING_PROMPTS_MIN, 1] = 1
    statistics = latent_statistics(discover_rows(dense, IS_TARGET))
    assert np.isnan(statistics.p_value).tolist() == [True, False]
    assert statistics.q_value[1] == statistics.p_value[1]


def test_a_stored_zero_does_not_fire():
    stored = scipy.sparse.csr_array((np.zeros(1, dtype=np.float32), [0], [0, 1, 1]), shape=(2, 1))
    statistics = latent_statistics(discover_rows(stored, np.array([True, False])))
    assert statistics.n_firing[0] == 0


def test_both_conditions_are_needed():
    with pytest.raises(ValueError, match="both conditions"):
        latent_statistics(discover_rows(np.ones((3, 1)), np.ones(3, dtype=bool)))


ROWS = sparse([[5, 0, 1], [0, 0, 2], [7, 0, 0], [0, 9, 0], [1, 1, 0]])
PROMPT_INDEX = np.array([0, 0, 0, 1, 1], dtype=np.int32)
POSITION = np.array([1, 3, 2, 1, 2], dtype=np.int32)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("last", [[0, 0, 2], [1, 1, 0]]),
        ("max", [[7, 0, 2], [1, 9, 0]]),
        ("mean", [[4, 0, 1], [0.5, 5, 0]]),
    ],
)
def test_rows_are_reduced_to_prompts(aggregation, expected):
    found = aggregate_prompts(ROWS, PROMPT_INDEX, POSITION, 2, aggregation)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)
    assert found.dtype == np.float32


def test_shuffled_rows_reduce_to_the_same_prompts():
    order = np.array([4, 2, 0, 3, 1])
    for aggregation in ("last", "max", "mean"):
        expected = aggregate_prompts(ROWS, PROMPT_INDEX, POSITION, 2, aggregation)
        found = aggregate_prompts(ROWS[order], PROMPT_INDEX[order], POSITION[order], 2, aggregation)
        np.testing.assert_array_equal(found.toarray(), expected.toarray())


@pytest.mark.parametrize("aggregation", ["last", "max", "mean"])
def test_silent_rows_reduce_to_silence(aggregation):
    found = aggregate_prompts(sparse(np.zeros((5, 3))), PROMPT_INDEX, POSITION, 2, aggregation)
    assert (found.shape, found.nnz) == ((2, 3), 0)


def test_a_prompt_without_rows_is_refused():
    with pytest.raises(ValueError, match="every prompt needs"):
        aggregate_prompts(ROWS, PROMPT_INDEX, POSITION, 3, "mean")
