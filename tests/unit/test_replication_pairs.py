"""Pairs of dictionaries: what of one is found again in another, where the truth is known."""

import numpy as np
import pytest
import scipy.sparse

from loopscope.numerics.replication.matching import Share, assigned, edge_is_there, nearest
from loopscope.views.replication.pairs import over_pairs

LATENTS, WIDTH = 120, 256


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def planted(seed, kept, noise=0.3):
    """Two decoders of which the second holds ``kept`` latents of the first, elsewhere and noisy."""
    generator = np.random.default_rng(seed)
    first = unit(generator.normal(size=(LATENTS, WIDTH)))
    place = generator.permutation(LATENTS)  # where each latent of the first stands in the second
    second = unit(generator.normal(size=(LATENTS, WIDTH)))
    turned = first + noise * unit(generator.normal(size=first.shape))
    second[place[:kept]] = unit(turned[:kept])
    return scipy.sparse.csr_array(first @ second.T), place


@pytest.mark.parametrize("kept", [0, 60, 90, LATENTS])
def test_the_share_that_was_planted_is_found_latent_for_latent(kept):
    cosines, place = planted(kept, kept)
    found = assigned(cosines, 0.7)
    assert found.partner == {latent: place[latent] for latent in range(kept)}
    assert (nearest(cosines) >= 0.7).sum() == kept
    share = Share.over([latent in found.partner for latent in range(LATENTS)])
    assert (share.count, share.of) == (kept, LATENTS)
    assert share.low <= kept / LATENTS <= share.high


def test_noise_is_told_from_copies_by_the_limit():
    cosines, _ = planted(1, LATENTS, noise=3.0)
    assert not assigned(cosines, 0.7).partner


def test_two_latents_that_became_one_have_one_match():
    rows = np.array([[0.9, 0.0], [0.95, 0.1]])
    cosines = scipy.sparse.csr_array(rows)
    assert (nearest(cosines) >= 0.7).sum() == 2
    assert assigned(cosines, 0.7).partner == {1: 0}


def test_the_assignment_is_the_best_in_sum_and_not_the_greedy_one():
    cosines = scipy.sparse.csr_array(np.array([[0.9, 0.85], [0.88, 0.1]]))
    assert assigned(cosines, 0.7).partner == {0: 1, 1: 0}


def test_an_edge_is_found_again_where_both_ends_and_the_edge_are():
    coarse, fine = {0: 5, 1: 6}, {10: 20, 11: 21}
    edges, others = [(0, 10), (0, 11), (1, 10), (2, 11)], [(5, 20), (6, 21)]
    assert edge_is_there(edges, coarse, fine, others) == [True, False, False, False]


def test_a_share_of_none_is_not_known():
    share = Share.over([])
    assert share.of == 0 and np.isnan(share.share) and np.isnan(share.low)


def test_too_many_latents_to_assign_at_once_are_refused():
    with pytest.raises(ValueError, match="at most"):
        assigned(scipy.sparse.csr_array((9000, 2)), 0.7)


def test_over_several_pairs_what_is_in_every_one_is_counted_and_in_how_many_the_effect_holds():
    kept = [
        {"latents": [True, True, True, False], "edges": [True]},
        {"latents": [True, True, False, False], "edges": [False]},
        {"latents": [True, False, True, False], "edges": [True]},
    ]
    lines = list(over_pairs(kept, ["same effect", "another effect", "same effect"]))
    assert {one.pair for one in lines} == {"all"}
    assert [(one.what, one.found.count, one.found.of) for one in lines] == [
        ("latents, in every pair", 1, 4), ("edges, in every pair", 0, 1),
        ("pairs with the same effect", 2, 3), ("pairs with another effect", 1, 3),
    ]  # fmt: skip
    assert all(one.found.low <= one.found.share <= one.found.high for one in lines)


def test_one_other_pair_is_no_sample_of_pairs():
    assert list(over_pairs([{"latents": [True]}], ["same effect"])) == []


def test_without_steering_no_effect_is_counted():
    lines = list(over_pairs([{"latents": [True]}] * 2, [None, None]))
    assert [one.what for one in lines] == ["latents, in every pair"]


@pytest.mark.parametrize("kept", [(0.9, 0.9), (0.5, 0.8)])
def test_what_every_pair_holds_of_a_planted_truth_is_found(kept):
    """Copies are drawn for each pair by themselves, so about the product is in both."""
    truths, found = [], []
    for number, share in enumerate(kept):
        generator = np.random.default_rng(number)
        first = unit(np.random.default_rng(9).normal(size=(LATENTS, WIDTH)))
        copied = generator.random(LATENTS) < share
        second = np.where(copied[:, None], first, unit(generator.normal(size=first.shape)))
        turned = unit(second + 0.2 * unit(generator.normal(size=first.shape)))
        cosines = scipy.sparse.csr_array(first @ turned[generator.permutation(LATENTS)].T)
        truths.append(copied)
        partner = assigned(cosines, 0.7).partner
        found.append({"latents": [latent in partner for latent in range(LATENTS)]})
    (line,) = over_pairs(found, [None, None])
    assert line.found.count == np.logical_and(*truths).sum()
