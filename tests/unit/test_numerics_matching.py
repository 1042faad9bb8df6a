"""Which latents a candidate is ranked among, and how."""

import numpy as np
import pytest
import torch

from loopscope.numerics.gate.matching import (
    Comparison,
    Covariates,
    crowding,
    exceedance,
    matched_null,
)
from tests.rows import discover_rows, held_out_rows


def covariates(
    text_rate: np.ndarray, norm: np.ndarray | None = None, density: np.ndarray | None = None
) -> Covariates:
    alike = np.ones(len(text_rate))
    return Covariates(
        text_rate,
        alike if norm is None else norm,
        alike if density is None else density,
        alike.astype(bool),
    )


@pytest.mark.parametrize("which", ["text_rate", "norm", "density"])
def test_anchors_are_the_nearest_in_each_covariate_and_never_candidates(which):
    generator = np.random.default_rng(0)
    values = generator.permutation(np.geomspace(1e-3, 0.5, 1200))
    flat = np.full(1200, 0.01)
    kinds = {"text_rate": flat, "norm": flat, "density": flat, which: values}
    comparison = Comparison.of(generator.poisson(2, 1200), covariates(**kinds))
    null = matched_null(comparison, np.array([3, 700]), 500, seed=0)
    # a tenth of 1,198 others
    assert (null.draws, null.eligible) == (119, 1198)
    assert not np.isin(null.anchors, [3, 700]).any()
    scale = np.log(values) if which == "text_rate" else values
    for place, latent in enumerate((3, 700)):
        others = np.delete(np.arange(1200), [3, 700])
        nearest = others[np.argsort(np.abs(scale[others] - scale[latent]))[:119]]
        assert sorted(null.anchors[place]) == sorted(nearest)
    expected = np.abs(values[null.anchors] - values[[3, 700]][:, None]).mean()
    assert null.differences[which] == pytest.approx(expected)


def test_latents_are_matched_on_text_whatever_they_do_on_prompts():
    """The old rule: a concept latent was matched with what fires on half of all prompts."""
    generator = np.random.default_rng(1)
    latents = 400
    often = np.arange(latents) < 200
    fires = generator.random((100, latents)) < np.where(often, 0.5, 0.05)
    text_rate = np.where(np.arange(latents) % 2 == 0, 0.001, 0.3)
    rows = discover_rows(fires.astype(np.float32), np.arange(100) < 50)
    decoder = torch.from_numpy(generator.normal(size=(latents, 300)).astype(np.float32))
    comparison = Comparison.of(
        generator.poisson(2, latents), Covariates.of(decoder, text_rate, rows)
    )
    null = matched_null(comparison, np.array([0]), 500, seed=0)
    assert (text_rate[null.anchors] == 0.001).all()
    assert 0.3 < often[null.anchors].mean() < 0.7


def test_latents_that_fire_nowhere_are_no_anchors():
    activations = np.ones((10, 5))
    activations[:, 3:] = 0
    rows = discover_rows(activations, np.arange(10) < 5)
    rate = np.array([0.1, 0.0, 0.2, 0.1, 0.0])
    comparison = Comparison.of(np.arange(5), Covariates.of(torch.eye(5), rate, rows))
    null = matched_null(comparison, np.array([0]), 500, seed=0)
    assert sorted(null.anchors[0]) == [1, 2, 3]


def test_ranks_are_mid_ranks_and_ties_count_against_the_candidates():
    children = np.array([5, 1, 2, 5, 9])
    comparison = Comparison.of(children, covariates(np.full(5, 0.1)))
    null = matched_null(comparison, np.array([0]), 500, seed=0)
    # 1 and 2 below, a tie with 5, 9 above: mid-rank 3.5 of 5
    assert null.ranks == pytest.approx([100 * (3.5 - 0.5) / 5])
    assert null.mean_rank == pytest.approx(null.ranks[0])
    # of four anchors the tie and the 9 reach it
    assert null.percentile == pytest.approx(100 * (1 - 3 / 5))
    assert null.percentile_of_best(5) == pytest.approx(null.percentile)
    assert exceedance(np.array([3, 3, 3, 3]), 3) == 1.0
    assert exceedance(np.zeros(99, dtype=int), 1) == 0.01


def test_the_mean_rank_hears_of_every_candidate_and_the_maximum_of_one():
    generator = np.random.default_rng(2)
    children = generator.poisson(2, 400)
    children[:4] = 5
    children[10] = children[11] = 12
    null = matched_null(
        Comparison.of(children, covariates(generator.uniform(0.01, 0.2, 400))),
        np.arange(4), 500, seed=0,
    )  # fmt: skip
    assert null.percentile > 95
    assert null.percentile_of_best(5) < 95


def test_under_the_null_every_percentile_is_as_likely_as_its_share():
    """Latents of a rarer kind have more children each; none of them is special."""
    above = []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        rate = np.exp(generator.normal(-4, 1.3, 400)).clip(0, 0.9)
        rate[:4] /= 3
        children = generator.poisson(2 * (rate / np.exp(-4)) ** -0.3)
        null = matched_null(Comparison.of(children, covariates(rate)), np.arange(4), 500, seed=0)
        above.append(null.percentile >= 80)
    assert np.mean(above) == pytest.approx(0.2, abs=0.07)


def test_norms_that_differ_by_the_rounding_of_stored_weights_match_nothing():
    generator = np.random.default_rng(5)
    rows = generator.normal(size=(400, 640))
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    prompts = discover_rows(np.ones((4, 400)), np.arange(4) < 2)
    rate = generator.uniform(0.01, 0.2, 400)
    stored = Covariates.of(torch.from_numpy(unit.astype(np.float32)), rate, prompts)
    assert stored.norm.std() > 1e-6
    without = Covariates(rate, np.ones(400), stored.density, stored.living)
    children = generator.poisson(2, 400)
    anchors = [
        matched_null(Comparison.of(children, known), np.array([0, 1]), 500, seed=0).anchors
        for known in (stored, without)
    ]
    assert (anchors[0] == anchors[1]).all()


def rates_on_few_tokens(exponent: float) -> Comparison:
    generator = np.random.default_rng(3)
    true = np.exp(generator.normal(-6, 1.3, 4000)).clip(0, 0.9)
    measured = generator.binomial(4800, true) / 4800
    return Comparison.of(
        generator.poisson(3 * (true / np.exp(-6)) ** exponent), covariates(measured)
    )


def test_an_allowance_is_made_for_rates_that_rest_on_few_tokens_and_only_against_candidates():
    for exponent in (-0.3, 0.3):
        compared = rates_on_few_tokens(exponent)
        rate = compared.covariates.text_rate
        rare, frequent = np.flatnonzero(rate < 0.001), np.flatnonzero(rate > 0.05)
        for candidates in (rare, frequent):
            assert (compared.allowance(candidates) >= 0).all()
        assert compared.allowance(frequent).max() < 0.02
        # where rare latents have more children, a candidate may be rarer than it reads
        assert (compared.allowance(rare).mean() > 0.05) == (exponent < 0)


def test_candidates_that_are_as_frequent_as_others_on_the_whole_are_allowed_for_nothing():
    """What errs in one of them is drawn to their common mean, as it is in any other latent."""
    compared = rates_on_few_tokens(-0.3)
    near = compared.coordinates[:, 0]
    rare, mean = int(near.argmin()), np.abs(near).argsort()[:9]
    alone = compared.allowance(np.array([rare]))[0]
    (among, *_) = compared.allowance(np.array([rare, *mean]))
    assert alone > 0.1
    assert among == pytest.approx(alone / 10, rel=0.2)
    balanced = np.array([rare, int(np.abs(near + near[rare]).argmin())])
    assert compared.allowance(balanced).max() < alone / 20


def test_without_rates_over_text_there_is_nothing_to_match_by():
    unknown = covariates(np.full(200, np.nan))
    null = matched_null(Comparison.of(np.arange(200), unknown), np.array([0, 1]), 500, seed=0)
    assert (null.draws, null.anchors.shape) == (0, (2, 0))
    assert np.isnan([null.percentile, null.mean_rank, *null.ranks]).all()
    assert np.isnan(list(null.differences.values())).all()


def test_without_candidates_there_is_no_null():
    none = np.array([], dtype=int)
    comparison = Comparison.of(np.array([1, 2]), covariates(np.array([0.1, 0.2])))
    null = matched_null(comparison, none, 500, seed=0)
    assert (null.draws, null.eligible, null.ranks.size) == (0, 2, 0)
    assert np.isnan(null.percentile)


def test_who_lives_is_asked_of_rows_that_may_choose():
    held = held_out_rows(np.ones((4, 2)), np.arange(4) < 2)
    with pytest.raises(TypeError, match="only DiscoverRows"):
        Covariates.of(torch.eye(2), np.ones(2), held)


@pytest.mark.parametrize("bytes_max", [1, 4000, 2**20])
def test_crowding_is_the_mean_cosine_to_the_ten_nearest_others_in_blocks_of_any_size(bytes_max):
    rows = np.random.default_rng(4).normal(size=(60, 8))
    rows[7] = 0
    unit = np.divide(
        rows, np.linalg.norm(rows, axis=1, keepdims=True), where=rows != 0, out=rows * 0
    )
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    expected = np.sort(cosines, axis=1)[:, -10:].mean(axis=1)
    found = crowding(torch.from_numpy(rows), bytes_max)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[7] == 0
    assert crowding(torch.ones(1, 3)).tolist() == [0]
    assert crowding(torch.tensor([[1.0, 0], [0.6, 0.8]])).tolist() == pytest.approx([0.6, 0.6])


def test_where_nothing_varies_there_is_no_covariate():
    alike = Covariates(np.full(3, 0.5), np.ones(3), np.zeros(3), np.ones(3, dtype=bool))
    assert alike.standardised().shape == (3, 0)
