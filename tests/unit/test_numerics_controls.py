"""The controls: their law against rows made in full, and for each a world where it blocks."""

import numpy as np
import pytest
import scipy.stats
import torch

from loopscope.numerics.gate.controls import (
    Control,
    deciding_p,
    drawn_row_counts,
    exceedance,
    permuted_pair_counts,
)
from loopscope.numerics.gate.near_rows import (
    DOUBT_NATS,
    NearRows,
    _compared,
    _suffix,
    long_normals,
)
from loopscope.numerics.gate.row_law import RowLaw

LIMIT = 0.05
"""p of a control above which the gate stays shut (minPercentile 95)."""


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def rotation(width: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


def made_in_full(anchors, allowed, law: RowLaw, cut: float, draws: int) -> np.ndarray:
    generator = np.random.default_rng(5)
    counts = []
    for _ in range(draws):
        z = generator.normal(size=(allowed.shape[1], len(law.variances)))
        rows = law.mean + (z * np.sqrt(law.variances)) @ law.axes.T
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        counts.append((((anchors @ rows.T) >= cut) & allowed).sum(axis=1).max())
    return np.array(counts)


SPECTRA = {
    "flat": np.ones(40),
    "falling": 0.8 ** np.arange(40),
    "three large": np.repeat([50.0, 0.01], [3, 37]),
    "wide": np.ones(200),
    "two dimensions": np.repeat([1.0, 0.0], [2, 38]),
}


@pytest.mark.parametrize("offset", [0.0, 0.8])
@pytest.mark.parametrize("name", SPECTRA)
def test_rows_that_are_hardly_drawn_have_the_law_of_rows_made_in_full(name, offset):
    """Also where anchors depend on one another, and the law has a mean."""
    variances = SPECTRA[name]
    axes = rotation(len(variances))
    kept = variances > 0
    mean = offset * np.sqrt(variances.sum()) * (axes[:, 0] + 0.1 * axes[:, -1])
    law = RowLaw(mean, axes[:, kept], variances[kept])
    generator = np.random.default_rng(1)
    anchors = generator.normal(size=(4, len(variances))) + 2 * axes[:, 0]
    anchors[2] = anchors[1] + anchors[3] / 2
    anchors /= np.linalg.norm(anchors, axis=1, keepdims=True)
    allowed = generator.random((4, 60)) < 0.7
    for cut in (0.15, 0.3):
        made = made_in_full(anchors, allowed, law, cut, 300)
        given = torch.from_numpy(anchors)
        found = drawn_row_counts(given, allowed, law, cut, ("test", 1), draws=300)
        assert scipy.stats.ks_2samp(made, found, method="asymp").pvalue > 0.001
        error = 4 * np.std(made) * np.sqrt(2 / 300)
        assert np.mean(found) == pytest.approx(np.mean(made), abs=error + 0.01)


@pytest.mark.parametrize(("width", "length"), [(1, 1.5), (3, 0.0), (3, 2.0), (5, 3.5), (5, -1.0)])
def test_long_normal_vectors_are_those_that_a_look_at_all_would_keep(width, length):
    """As many, as long, in all directions, and at places that are all as likely."""
    rows, times = 500, 400
    generator = np.random.default_rng(0)
    every = generator.standard_normal((times, rows, width))
    kept = np.linalg.norm(every, axis=2) >= length
    drawn = [long_normals(generator, rows, width, length) for _ in range(times)]
    vectors = np.concatenate([found for _, found in drawn])
    assert np.linalg.norm(vectors, axis=1).min() >= max(0.0, length) * (1 - 1e-12)
    numbers = [len(found) for _, found in drawn]
    error = 4 * kept.sum(axis=1).std() * np.sqrt(2 / times) + 1e-9
    assert np.mean(numbers) == pytest.approx(kept.sum(axis=1).mean(), abs=error)
    if length > 0:
        assert np.std(numbers) == pytest.approx(kept.sum(axis=1).std(), rel=0.2)
    for axis in range(width):
        told = scipy.stats.ks_2samp(vectors[:, axis], every[kept][:, axis], method="asymp")
        assert told.pvalue > 0.001
    for places, found in drawn:
        assert len(set(places.tolist())) == len(places) == len(found)
    often = np.bincount(np.concatenate([places for places, _ in drawn]), minlength=rows)
    assert often.std() <= 1.3 * np.sqrt(max(1e-9, often.mean() * (1 - len(vectors) / rows / times)))


def test_no_row_is_drawn_where_none_can_be_long_enough():
    generator = np.random.default_rng(0)
    assert [len(part) for part in long_normals(generator, 10**9, 5, 40.0)] == [0, 0]
    assert long_normals(generator, 9, 0, 1.0)[1].shape == (0, 0)
    assert long_normals(generator, 9, 0, 0.0)[1].shape == (9, 0)


def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.mean(axis=0), np.cov(unit.T, bias=True)


def test_rows_of_the_law_have_mean_and_covariance_of_the_decoder_once_both_are_unit():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(500, 6)) * [3, 2, 1, 1, 1, 0.5] + [1, 0, 0, 0, 0, 0]
    given = np.concatenate([7 * rows, np.zeros((20, 6))])
    law = RowLaw.of_decoder(torch.from_numpy(given))
    z = generator.normal(size=(20_000, len(law.variances)))
    drawn = law.mean + (z * np.sqrt(law.variances)) @ law.axes.T
    for found, expected in zip(moments(drawn), moments(rows), strict=True):
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_row_that_reaches_the_cut_exactly_reaches_it():
    y, norm = np.array([[0.3], [0.29]]), np.ones(2)
    surely, perhaps = _compared(y, norm, norm, 0.3)
    assert surely.tolist() == [[True], [False]] and not perhaps.any()


def test_rows_keep_what_all_of_them_have_in_common_although_it_never_varies():
    """On a circle around an axis, in five dimensions: the mean lies outside of what varies."""
    generator = np.random.default_rng(0)
    around = generator.normal(size=(500, 5))
    around *= 0.18 / np.linalg.norm(around, axis=1, keepdims=True)
    rows = np.concatenate([around, np.full((500, 1), np.sqrt(1 - 0.18**2))], axis=1)
    law = RowLaw.of_decoder(torch.from_numpy(rows))
    assert len(law.variances) == 5
    z = generator.normal(size=(20_000, 5))
    drawn = law.mean + (z * np.sqrt(law.variances)) @ law.axes.T
    (mean, covariance), (expected_mean, expected) = moments(drawn), moments(rows)
    np.testing.assert_allclose(mean, expected_mean, atol=0.005)
    assert np.trace(covariance) == pytest.approx(np.trace(expected), rel=0.05)


def test_the_law_of_the_stream_has_its_covariance_and_no_mean():
    rows = np.random.default_rng(0).normal(size=(500, 6)) * [3, 2, 1, 1, 1, 0.5] + 50
    stream = RowLaw.of_stream(torch.from_numpy(rows))
    assert not stream.mean.any()
    covariance = (stream.axes * stream.variances) @ stream.axes.T
    np.testing.assert_allclose(covariance, np.cov(rows.T, bias=True), atol=1e-10)


def test_effective_dimensions_are_as_many_as_there_are_when_all_vary_alike():
    axes = rotation(12)
    assert RowLaw(np.zeros(12), axes, np.ones(12)).effective_dimensions == pytest.approx(12)
    one = RowLaw(np.zeros(12), axes[:, :2], np.array([1.0, 1e-6]))
    assert one.effective_dimensions == pytest.approx(1, abs=1e-4)


def test_the_same_key_draws_the_same_dictionaries():
    law = RowLaw(np.zeros(9), rotation(9), np.ones(9))
    anchors, every = torch.eye(9)[:2], np.ones((2, 100), dtype=bool)
    one, again = (drawn_row_counts(anchors, every, law, 0.3, ("a", 0)) for _ in range(2))
    assert one.tolist() == again.tolist()
    assert one.tolist() != drawn_row_counts(anchors, every, law, 0.3, ("a", 1)).tolist()


def test_without_anchors_or_rows_nothing_is_counted():
    law = RowLaw(np.zeros(5), rotation(5), np.ones(5))
    none = drawn_row_counts(torch.zeros(0, 5), np.zeros((0, 9), dtype=bool), law, 0.3, ("a",))
    assert none.tolist() == [0] * 99
    empty = RowLaw.of_decoder(torch.zeros(9, 5))
    every = np.ones((2, 9), dtype=bool)
    assert drawn_row_counts(torch.eye(5)[:2], every, empty, 0.0, ("a",)).tolist() == [0] * 99


def crowded(direction_variance: float, children: int) -> Control:
    """An anchor with planted children in 640 dimensions, cosine 0.6, among 4,000 fine rows.

    All rows vary along the anchor's direction as if by accident, ``direction_variance`` of their
    square: that gives it children as well.
    """
    generator = np.random.default_rng(0)
    width, fine = 640, 4_000
    anchor = np.eye(width)[0]
    rows = generator.normal(size=(fine, width)) / np.sqrt(width) * np.sqrt(1 - direction_variance)
    rows[:, 0] = generator.normal(size=fine) * np.sqrt(direction_variance)
    rows[:children] *= 0.8 / np.linalg.norm(rows[:children], axis=1, keepdims=True)
    rows[:children, 0] = 0.6
    cosines = rows[:, 0] / np.linalg.norm(rows, axis=1)
    law = RowLaw.of_decoder(torch.from_numpy(rows))
    every = np.ones((1, fine), dtype=bool)
    counts = drawn_row_counts(torch.from_numpy(anchor[None]), every, law, 0.3, ("decoder rows", 0))
    observed = int((cosines >= 0.3).sum())
    return Control("decoder rows", observed, counts, True, law.effective_dimensions)


def test_rows_that_spread_as_the_decoder_block_where_all_rows_lie_near_the_anchor():
    accident = crowded(direction_variance=0.03, children=0)
    assert accident.observed > 100
    assert deciding_p([accident]) > LIMIT
    # uniform directions, which such a gate was compared with before, have none there
    uniform = RowLaw(np.zeros(640), np.eye(640), np.full(640, 1 / 640))
    every = np.ones((1, 4_000), dtype=bool)
    assert drawn_row_counts(torch.eye(640)[:1], every, uniform, 0.3, ("u",)).max() == 0


def test_rows_that_spread_as_the_decoder_let_planted_children_through():
    planted = crowded(direction_variance=1 / 640, children=5)
    assert planted.observed == 5
    assert deciding_p([planted]) == 0.01


@pytest.mark.parametrize(("along", "blocks"), [(0.05, True), (1 / 640, False)])
def test_rows_that_spread_as_the_stream_reach_an_anchor_where_the_stream_varies(along, blocks):
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(2_000, 640)) * 40 + 500
    rows[:, 0] *= np.sqrt(along * 640)
    law = RowLaw.of_stream(torch.from_numpy(rows))
    every = np.ones((1, 4_000), dtype=bool)
    counts = drawn_row_counts(torch.eye(640)[:1], every, law, 0.3, ("stream rows", 0))
    assert (exceedance(counts, 5) > LIMIT) == blocks


def pairs(generator, selective: float) -> tuple[np.ndarray, np.ndarray]:
    """Five of 2,000 fine latents lie near the anchor and behave like children; of the others
    the share ``selective`` behaves so as well."""
    aligned, behaves = np.zeros((1, 2_000), dtype=bool), np.zeros((1, 2_000), dtype=bool)
    aligned[0, :5] = True
    behaves[0] = generator.random(2_000) < selective
    behaves[0, :5] = True
    return aligned, behaves


@pytest.mark.parametrize(("selective", "blocks"), [(0.9, True), (0.05, False)])
def test_permuted_pairs_block_where_nearly_every_fine_latent_behaves_like_a_child(
    selective, blocks
):
    aligned, behaves = pairs(np.random.default_rng(0), selective)
    counts = permuted_pair_counts(aligned, behaves, (0,))[:, 0]
    control = Control("permuted pairs", 5, counts, decides=True)
    assert (deciding_p([control]) > LIMIT) == blocks


def test_permuted_pairs_have_the_law_of_an_urn():
    aligned, behaves = pairs(np.random.default_rng(1), 0.3)
    counts = permuted_pair_counts(aligned, behaves, (3,), draws=2_000)[:, 0]
    law = scipy.stats.hypergeom(2_000, int(behaves.sum()), 5)
    assert np.mean(counts) == pytest.approx(law.mean(), abs=0.1)
    assert np.mean(counts >= 3) == pytest.approx(law.sf(2), abs=0.03)


def test_a_rule_of_cosines_alone_is_left_as_it_is_by_permuted_pairs():
    aligned, behaves = pairs(np.random.default_rng(2), 1.0)
    assert set(permuted_pair_counts(aligned, behaves, (0,))[:, 0]) == {5}


def test_the_hardest_control_that_decides_counts_and_none_is_no_pass():
    easy = Control("decoder rows", 5, np.zeros(99, dtype=int), decides=True)
    hard = Control("permuted pairs", 5, np.full(99, 9), decides=True)
    shown = Control("stream rows", 5, np.full(99, 9), decides=False)
    assert deciding_p([easy, shown]) == 0.01
    assert deciding_p([easy, shown, hard]) == 1.0
    assert deciding_p([shown]) == 1.0


@pytest.mark.parametrize("spread", ["even", "steep"])
def test_the_least_norm_that_is_assumed_without_a_look_is_below_every_bound(spread):
    """A block of rows is done with unseen only if no row of it could have been near an anchor."""
    generator = np.random.default_rng(0)
    scale = np.ones(400) if spread == "even" else 1 / (1 + np.arange(400.0))
    rows = torch.from_numpy((generator.normal(size=(4000, 400)) * scale).astype(np.float32))
    anchors = np.linalg.qr(generator.normal(size=(400, 3)))[0].T
    norms = NearRows.of(anchors, RowLaw.of_decoder(rows))
    u = generator.normal(size=(2000, norms.shares.shape[1])) * generator.uniform(0, 9, (2000, 1))
    for suffix in norms.suffixes:
        assert (suffix.bounds(u)[0] >= suffix.squared_norm_min - 1e-12).all()
    assert (norms.suffixes[0].squared_norm_min > 0.1) == (spread == "even")


@pytest.mark.parametrize("start", [0, 2])
def test_the_rest_of_a_norm_has_the_moments_of_a_normal_vector_given_its_shares(start):
    """Directly: z given u = z @ shares is normal with a projection as covariance."""
    generator = np.random.default_rng(3)
    shares = np.linalg.qr(generator.normal(size=(7, 2)))[0]
    mean, scale = generator.normal(size=7), np.sort(generator.uniform(0.2, 1.6, 7))[::-1]
    found = _suffix(start, shares, mean, scale)
    part, about, spread = shares[start:], mean[start:], np.diag(scale[start:])
    given = part @ np.linalg.inv(part.T @ part)
    covariance = spread @ (np.eye(len(part)) - given @ part.T) @ spread
    assert found.trace == pytest.approx(np.trace(covariance))
    assert found.squares == pytest.approx(np.trace(covariance @ covariance))
    assert found.largest == pytest.approx(scale[start] ** 2)
    u = generator.normal(size=(5, 2))
    norm = ((about + u @ given.T @ spread) ** 2).sum(axis=1)
    spill = 2 * np.sqrt((found.squares + 2 * found.largest * norm) * DOUBT_NATS)
    low, high = found.bounds(u)
    assert low == pytest.approx(np.maximum(norm + found.trace - spill, 0))
    assert high == pytest.approx(norm + found.trace + spill + 2 * found.largest * DOUBT_NATS)
