"""An edge beside pairs of its own cosine: no news where these go together as much."""

import numpy as np
import pytest
import torch

from loopscope.numerics.latents import same_cosine
from loopscope.numerics.latents.mapping import ActivationColumns, correlations
from loopscope.numerics.latents.same_cosine import SameCosine
from tests.rows import discover_rows

PROMPTS, WIDTH = 60, 40
IS_TARGET = np.arange(PROMPTS) % 2 == 0


def world(special: float, seed: int = 0):
    """Fifty coarse latents, each with a fine twin at cosine 0.8; both read the same stream.

    The first pair shares ``special`` more than its directions explain.
    """
    generator = np.random.default_rng(seed)
    coarse = generator.normal(size=(50, WIDTH))
    coarse /= np.linalg.norm(coarse, axis=1, keepdims=True)
    away = generator.normal(size=coarse.shape)
    away -= (away * coarse).sum(axis=1, keepdims=True) * coarse
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    fine = 0.8 * coarse + 0.6 * away
    stream = generator.normal(size=(PROMPTS, WIDTH))
    left, right = (np.maximum(stream @ rows.T, 0) for rows in (coarse, fine))
    extra = generator.exponential(1, PROMPTS)
    left[:, 0] += special * extra
    right[:, 0] += special * extra
    columns = [
        ActivationColumns.within_condition(discover_rows(dense, IS_TARGET))
        for dense in (left, right)
    ]
    decoders = tuple(torch.from_numpy(rows.astype(np.float32)) for rows in (coarse, fine))
    r = correlations(*columns, np.array([0]), np.array([0]))[0]
    return SameCosine.of(decoders, *columns, np.array([0]), seed=0), r


def test_a_pair_like_any_other_of_its_cosine_is_not_remarkable_though_it_is_not_independent():
    p = [
        world(0.0, seed)[0].compared(np.array([0.8]), world(0.0, seed)[1])[0][0]
        for seed in range(12)
    ]
    assert all(r > 0.4 for r in (world(0.0, seed)[1][0] for seed in range(3)))
    assert np.mean(p) == pytest.approx(0.5, abs=0.25)


def test_a_pair_that_goes_together_more_than_its_cosine_explains_is():
    alike, r = world(8.0)
    p, pairs = alike.compared(np.array([0.8]), r)
    assert p[0] == pytest.approx(1 / (1 + pairs[0]))
    assert pairs[0] == 49, "the twins of the other latents; the candidate's own pair is not one"


def test_what_has_no_like_or_no_correlation_is_missing():
    alike, r = world(0.0)
    p, pairs = alike.compared(np.array([-0.95, 0.8]), np.array([r[0], np.nan]))
    assert np.isnan(p).all()
    assert pairs.tolist() == [0, 49]


def test_an_edge_is_compared_with_the_nearest_pairs_on_both_sides(monkeypatch):
    """By hand: of pairs at these cosines the four nearest to 0.5 have these correlations."""
    monkeypatch.setattr(same_cosine, "PAIRS_MAX", 4)
    cosines = np.array([0.470, 0.488, 0.494, 0.499, 0.503, 0.509, 0.515, 0.530])
    found = np.array([9.0, 9.0, 0.1, 0.2, 0.3, 0.25, 9.0, 9.0])
    monkeypatch.setattr(same_cosine, "correlations", lambda *a: found[a[3]][None])
    fine = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)
    decoders = torch.tensor([[1.0, 0.0]]), torch.from_numpy(fine)
    columns = ActivationColumns.within_condition(discover_rows(np.eye(2), np.array([True, False])))
    pairs = SameCosine(decoders, columns, columns, np.array([0]), np.arange(len(fine)))
    p, number = pairs.compared(np.array([0.5, 0.5, 0.9]), np.array([0.3, np.nan, 0.3]))
    assert number.tolist() == [4, 4, 0]
    assert p[0] == pytest.approx((1 + 1) / (1 + 4))
    assert np.isnan(p[1]) and np.isnan(p[2])
