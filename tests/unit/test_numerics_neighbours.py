"""Neighbours of coarse latents: equal to all cosines in float64, in any blocks, and bounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loopscope.numerics.latents import neighbours as module
from loopscope.numerics.latents.mapping import HISTOGRAM_BINS
from loopscope.numerics.latents.neighbours import COSINE_FLOOR, joined, neighbours_of
from loopscope.specs.payloads import geometry

COARSE, FINE, WIDTH = 7, 90, 6


@pytest.fixture
def decoders():
    generator = np.random.default_rng(0)
    coarse, fine = (generator.normal(size=(n, WIDTH)) for n in (COARSE, FINE))
    coarse[3] = 0
    fine[[4, 50]] = 0
    fine[8] = 3 * coarse[1]
    fine[80] = coarse[1]
    return tuple(torch.from_numpy(rows.astype(np.float32)) for rows in (coarse, fine))


def exactly(coarse, fine) -> np.ndarray:
    """All cosines in float64; those of a zero row are 0."""
    left, right = (rows.double().numpy() for rows in (coarse, fine))
    size = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)
    return np.divide(left @ right.T, size, out=np.zeros(size.shape), where=size > 0)


@pytest.mark.parametrize("width", [1, 13, FINE, 4096])
def test_all_fine_latents_from_the_floor_on_are_listed_falling_in_any_blocks(decoders, width):
    expected, found = exactly(*decoders), neighbours_of(*decoders, width)
    for row in range(COARSE):
        fine, cosine = found.of(row)
        assert set(fine) == set(np.flatnonzero(expected[row] >= COSINE_FLOOR))
        np.testing.assert_allclose(cosine, expected[row, fine], atol=1e-6)
        assert list(cosine) == sorted(cosine, reverse=True)
    assert found.of(1)[0][:2].tolist() == [8, 80], "of equal cosines the lower latent comes first"
    assert len(found.of(3)[0]) == 0
    assert not found.is_bounded.any()


def test_every_cosine_is_counted_in_its_bin(decoders):
    expected = exactly(*decoders)
    found = neighbours_of(*decoders, 13).histogram
    for row in range(COARSE):
        count, _ = np.histogram(expected[row].astype(np.float32), HISTOGRAM_BINS, (-1, 1))
        assert found[row].tolist() == count.tolist()


@pytest.mark.parametrize("width", [1, 13, FINE])
@pytest.mark.parametrize("waiting", [1, 2**20])
def test_of_too_many_the_highest_are_listed_and_the_floor_says_from_where_on_all_are(
    decoders, width, waiting, monkeypatch
):
    monkeypatch.setattr(module, "WAITING_PAIRS_MAX", waiting)
    whole = neighbours_of(*decoders, FINE)
    found = neighbours_of(*decoders, width, neighbours_max=5)
    assert found.is_bounded.any() and not found.is_bounded.all()
    for row in range(COARSE):
        (fine, cosine), (every, values) = found.of(row), whole.of(row)
        assert fine.tolist() == every[:5].tolist()
        np.testing.assert_allclose(cosine, values[:5], atol=1e-6)
        assert found.is_bounded[row] == (len(every) > 5)
        complete = values >= found.floor[row] + 1e-6
        assert set(every[complete]) <= set(fine)


def test_groups_of_rows_together_are_the_whole(decoders):
    coarse, fine = decoders
    whole = neighbours_of(coarse, fine, 13)
    parts = joined([neighbours_of(coarse[:4], fine, 13), neighbours_of(coarse[4:], fine, 13)])
    for name in ("indptr", "fine", "floor", "histogram"):
        assert np.array_equal(getattr(parts, name), getattr(whole, name))
    np.testing.assert_allclose(parts.cosine, whole.cosine, atol=1e-6)


def test_plans_know_from_which_cosine_on_pairs_are_listed():
    assert geometry.COSINE_FLOOR == COSINE_FLOOR


def test_blocks_are_reported_in_order(decoders):
    done: list[int] = []
    neighbours_of(*decoders, 40, done.append)
    assert done == [40, 80, 90]
