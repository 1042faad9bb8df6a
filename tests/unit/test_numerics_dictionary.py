"""Encoding is exact whatever the blocks, and the quality numbers hold at their anchors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import torch

from loopscope.numerics.architectures import ARCHITECTURES, dictionary_of
from loopscope.numerics.architectures.gated import Gated
from loopscope.numerics.architectures.standard import Standard
from loopscope.numerics.architectures.topk import TopK
from loopscope.numerics.dictionaries.sparse import (
    BLOCK_ELEMENTS_MAX,
    ReconstructionSums,
    SparseDictionary,
    block_shape,
    decode,
    encode,
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def random_dictionary(architecture: str, d_in: int = 12, d_sae: int = 50) -> SparseDictionary:
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    tensors = {
        "w_enc": normal(d_in, d_sae),
        "b_enc": 0.1 * normal(d_sae),
        "w_dec": normal(d_sae, d_in),
        "b_dec": normal(d_in),
        "threshold": torch.full((d_sae,), 0.5),
        "r_mag": 0.3 * normal(d_sae),
        "b_mag": normal(d_sae),
    }
    writes = "transcoder" in architecture
    if writes:
        tensors |= {"w_dec": normal(d_sae, 5), "b_dec": normal(5), "w_skip": normal(5, d_in)}
    for name, width in {"query": 4, "key": 4, "value": d_sae, "mixed": d_sae}.items():
        tensors |= {f"w_{name}": 0.2 * normal(width, d_sae), f"b_{name}": 0.2 * normal(width)}
    settings = {"k": 6} if architecture in ("topk", "temporal") else {}
    if architecture == "temporal":
        settings |= {"heads": 2, "epsilon": 1e-6}
    return dictionary_of(architecture, tensors, settings, apply_b_dec_to_input=not writes)


def slow_activations(dictionary: SparseDictionary, x: torch.Tensor) -> np.ndarray:
    """One row and one latent at a time, in float64."""
    w_enc, b_enc = dictionary.w_enc.double().numpy(), dictionary.b_enc.double().numpy()
    result = np.zeros((len(x), dictionary.d_sae))
    shift = dictionary.b_dec.double().numpy() if dictionary.apply_b_dec_to_input else 0.0
    if dictionary.reads_context:  # what was predicted stands beside each row
        x = x[:, : dictionary.d_in] - x[:, dictionary.d_in :]
    for row, vector in enumerate(x.double().numpy() - shift):
        hidden = [float(vector @ w_enc[:, i] + b_enc[i]) for i in range(dictionary.d_sae)]
        chosen = range(dictionary.d_sae)
        if isinstance(dictionary, TopK):
            chosen = sorted(chosen, key=lambda i: -hidden[i])[: dictionary.k]
        for i in chosen:
            floor = float(dictionary.threshold[i]) if hasattr(dictionary, "threshold") else 0.0
            if hidden[i] > max(floor, 0.0):
                result[row, i] = hidden[i]
            if isinstance(dictionary, Gated) and hidden[i] > 0:
                scale = float(dictionary.r_mag[i].double().exp())
                magnitude = float(vector @ w_enc[:, i]) * scale + float(dictionary.b_mag[i])
                result[row, i] = max(0.0, magnitude)
    return result


def rows(count: int, d_in: int = 12) -> torch.Tensor:
    return torch.randn(count, d_in, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("apply_b_dec", [True, False])
def test_encoding_equals_a_slow_float64_reference(architecture, apply_b_dec):
    if apply_b_dec and "transcoder" in architecture:
        with pytest.raises(ValueError, match="takes no decoder bias"):
            replace(random_dictionary(architecture), apply_b_dec_to_input=True)
        return
    if not apply_b_dec and architecture == "temporal":
        with pytest.raises(ValueError, match="takes its decoder bias"):
            replace(random_dictionary(architecture), apply_b_dec_to_input=False)
        return
    dictionary = replace(random_dictionary(architecture), apply_b_dec_to_input=apply_b_dec)
    x = dictionary.in_context(rows(20))
    found = encode(dictionary, x, 1000, 1000)
    np.testing.assert_allclose(found.toarray(), slow_activations(dictionary, x), atol=1e-5)
    assert found.nnz == np.count_nonzero(slow_activations(dictionary, x))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("row_block", "latent_block"), [(1, 1), (3, 7), (20, 13), (7, 50)])
def test_blocks_change_nothing(architecture, row_block, latent_block):
    dictionary = random_dictionary(architecture)
    x = dictionary.in_context(rows(20))
    whole = encode(dictionary, x, 1000, 1000)
    parts = encode(dictionary, x, row_block, latent_block)
    np.testing.assert_array_equal(parts.indptr, whole.indptr)
    np.testing.assert_array_equal(parts.indices, whole.indices)
    np.testing.assert_allclose(parts.data, whole.data, atol=1e-5)
    assert parts.has_sorted_indices


def test_a_skip_connection_is_added_to_what_latents_write():
    with_skip = random_dictionary("jumprelu_skip_transcoder")
    without = random_dictionary("jumprelu_transcoder")
    x = rows(6)
    found = encode(with_skip, x, 10, 50)
    np.testing.assert_array_equal(found.toarray(), encode(without, x, 10, 50).toarray())
    by_hand = torch.from_numpy(found.toarray()) @ with_skip.w_dec + with_skip.b_dec
    torch.testing.assert_close(without.reconstruct(x, found), by_hand)
    torch.testing.assert_close(with_skip.reconstruct(x, found), by_hand + x @ with_skip.w_skip.T)


def test_one_latent_is_encoded_as_computed_by_hand():
    dictionary = Standard(
        w_enc=torch.tensor([[1.0, -1.0], [0.0, 2.0]]),
        b_enc=torch.tensor([0.5, 0.0]),
        w_dec=torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        b_dec=torch.tensor([1.0, 1.0]),
    )
    # (3, 1) - (1, 1) = (2, 0): pre-activations 2 + 0.5 and -2.
    found = encode(dictionary, torch.tensor([[3.0, 1.0]]), 1, 1)
    np.testing.assert_array_equal(found.toarray(), [[2.5, 0.0]])
    assert decode(dictionary, found).tolist() == [[3.5, 1.0]]


@pytest.mark.parametrize("latent_block", [1, 2, 3, 4, 8])
def test_among_equal_preactivations_topk_takes_the_lower_latent_whatever_the_blocks(latent_block):
    dictionary = TopK(
        w_enc=torch.tensor([[1.0, 2.0, 1.0, 3.0, 1.0, 2.0, 1.0, 2.0]]),
        b_enc=torch.zeros(8),
        w_dec=torch.ones(8, 1),
        b_dec=torch.zeros(1),
        k=3,
    )
    found = encode(dictionary, torch.ones(2, 1), 2, latent_block)
    assert found.toarray().tolist() == [[0, 2, 0, 3, 0, 2, 0, 0]] * 2


def test_topk_keeps_fewer_than_k_when_fewer_are_positive():
    dictionary = replace(random_dictionary("topk"), w_enc=-torch.ones(12, 50), k=50)
    dictionary = replace(dictionary, b_enc=torch.zeros(50), b_dec=torch.zeros(12))
    assert encode(dictionary, torch.ones(3, 12), 3, 11).nnz == 0


def test_the_threshold_itself_stays_silent():
    dictionary = replace(
        random_dictionary("jumprelu", 1, 1),
        w_enc=torch.ones(1, 1),
        b_enc=torch.zeros(1),
        b_dec=torch.zeros(1),
        threshold=torch.tensor([0.1]),
    )
    x = torch.tensor([[0.1], [np.nextafter(np.float32(0.1), np.float32(1))]])
    assert np.diff(encode(dictionary, x, 2, 1).indptr).tolist() == [0, 1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_rows_encode_to_no_rows(architecture):
    dictionary = random_dictionary(architecture)
    assert encode(dictionary, dictionary.in_context(rows(0)), 4, 4).shape == (0, 50)


def test_a_block_never_holds_more_elements_than_int32_counts():
    row_block, latent_block = block_shape(10**9, 262_144, bytes_max=2**62)
    assert row_block * latent_block <= BLOCK_ELEMENTS_MAX < 2**31


def test_blocks_that_would_overflow_are_narrowed(monkeypatch):
    monkeypatch.setattr("loopscope.numerics.dictionaries.sparse.BLOCK_ELEMENTS_MAX", 100)
    seen = []
    original = torch.Tensor.nonzero

    def spy(tensor, **options):
        seen.append(tensor.numel())
        return original(tensor, **options)

    monkeypatch.setattr(torch.Tensor, "nonzero", spy)
    dictionary = random_dictionary("standard")
    found = encode(dictionary, rows(20), 20, 50)
    assert max(seen) <= 100
    np.testing.assert_allclose(found.toarray(), slow_activations(dictionary, rows(20)), atol=1e-5)


def test_decoding_is_the_sum_of_rows_and_the_bias():
    dictionary = random_dictionary("topk")
    activations = encode(dictionary, rows(9), 4, 16)
    expected = activations.toarray() @ dictionary.w_dec.numpy() + dictionary.b_dec.numpy()
    np.testing.assert_allclose(decode(dictionary, activations).numpy(), expected, atol=1e-4)


def test_decoding_a_silent_row_gives_the_bias():
    dictionary = random_dictionary("standard")
    silent = scipy.sparse.csr_array((2, 50), dtype=np.float32)
    assert torch.equal(decode(dictionary, silent), dictionary.b_dec.expand(2, -1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w_dec": torch.zeros(50, 11)}, "w_dec must be float32"),
        ({"b_enc": torch.zeros(50, dtype=torch.float16)}, "b_enc must be float32"),
        ({"k": 0}, "topk needs"),
        ({"k": 51}, "topk needs"),
    ],
)
def test_parts_that_make_no_dictionary_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(random_dictionary("topk"), **change)


def test_an_unknown_architecture_and_a_missing_tensor_are_refused_by_name():
    four = {
        name: getattr(random_dictionary("standard"), name) for name in Standard.required_tensors
    }
    with pytest.raises(ValueError, match="unknown architecture 'abstopk'"):
        dictionary_of("abstopk", four)
    with pytest.raises(ValueError, match="jumprelu needs threshold"):
        dictionary_of("jumprelu", four)


def quality(x: torch.Tensor, reconstruction: torch.Tensor, batches: int = 1) -> ReconstructionSums:
    sums = ReconstructionSums.empty(x.shape[1], 5)
    parts = zip(x.chunk(batches), reconstruction.chunk(batches), strict=True)
    for part, answer in parts:
        active = scipy.sparse.random_array(
            (len(part), 5), density=0.4, format="csr", rng=np.random.default_rng(len(part))
        )
        sums = sums.merge(ReconstructionSums.of(part, answer, active))
    return sums


OFFSET_ROWS = rows(160) + 1000 * torch.ones(12)


def test_fvu_of_a_perfect_predictor_is_zero():
    assert quality(OFFSET_ROWS, OFFSET_ROWS).fvu == 0


def test_fvu_of_the_mean_predictor_is_one():
    mean = OFFSET_ROWS.double().mean(dim=0).expand(160, -1)
    assert quality(OFFSET_ROWS, mean).fvu == pytest.approx(1, abs=1e-9)


def test_fvu_of_the_zero_predictor_is_the_second_moment_over_the_variance():
    exact = OFFSET_ROWS.double().numpy()
    expected = (exact**2).sum() / ((exact - exact.mean(axis=0)) ** 2).sum()
    assert quality(OFFSET_ROWS, torch.zeros(160, 12)).fvu == pytest.approx(expected, rel=1e-9)
    assert expected > 1e5


def test_sixteen_batches_score_as_one():
    answer = OFFSET_ROWS + 0.3 * rows(160).flip(0)
    one, sixteen = quality(OFFSET_ROWS, answer), quality(OFFSET_ROWS, answer, batches=16)
    assert sixteen.fvu == pytest.approx(one.fvu, rel=1e-12)
    assert sixteen.cosine == pytest.approx(one.cosine, rel=1e-12)
    np.testing.assert_allclose(sixteen.mean, one.mean, rtol=1e-12)


def test_the_cosine_of_perfect_zero_and_opposite_predictors():
    centred = rows(160)
    assert quality(centred, centred).cosine == pytest.approx(1, abs=1e-6)
    assert quality(centred, torch.zeros(160, 12)).cosine == 0
    assert quality(centred, -3 * centred).cosine == pytest.approx(-1, abs=1e-6)


def test_the_cosine_flatters_the_mean_where_the_stream_has_an_offset():
    mean = OFFSET_ROWS.double().mean(dim=0).expand(160, -1)
    assert quality(OFFSET_ROWS, mean).cosine > 0.999


def test_the_cosine_as_computed_by_hand():
    x, answer = torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[1.0, 1.0], [4.0, 3.0]])
    none = scipy.sparse.csr_array((2, 1), dtype=np.float32)
    expected = (0.5**0.5 + 24 / 25) / 2
    assert ReconstructionSums.of(x, answer, none).cosine == pytest.approx(expected, rel=1e-6)


def test_l0_fvu_and_living_latents_as_computed_by_hand():
    x = torch.tensor([[0.0], [2.0], [4.0]])
    answer = torch.tensor([[1.0], [2.0], [3.0]])
    active = scipy.sparse.csr_array(np.array([[1.0, 0, 3], [0, 0, 2], [0, 0, 0]], dtype=np.float32))
    sums = ReconstructionSums.of(x, answer, active)
    # squared errors 1 + 0 + 1, squared distances to the mean 2: 4 + 0 + 4
    assert sums.fvu == pytest.approx(0.25)
    assert sums.l0 == 1.0
    assert sums.alive == 2


def test_fvu_of_rows_that_do_not_vary_is_not_a_number():
    assert np.isnan(quality(torch.ones(3, 2), torch.zeros(3, 2)).fvu)
