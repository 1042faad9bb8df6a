"""Active latents within rounding of the edge are counted, those with a clear margin are not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from loopscope.numerics.architectures import ARCHITECTURES, dictionary_of
from loopscope.numerics.architectures.gated import Gated
from loopscope.numerics.dictionaries.edge import ROUNDING, encode_to_the_edge, encoder_norms
from loopscope.numerics.dictionaries.sparse import SparseDictionary, encode
from tests.unit.test_numerics_dictionary import random_dictionary, rows


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def near_edge(dictionary: SparseDictionary, x: torch.Tensor, *blocks: int) -> int:
    shape = blocks or (len(x), dictionary.d_sae)
    return encode_to_the_edge(dictionary, x, *shape, encoder_norms(dictionary))[1]


def reading(architecture: str, k: int | None = None, threshold: float | None = None):
    """Four latents that read one number of the row each."""
    tensors = {
        "w_enc": torch.eye(4),
        "b_enc": torch.zeros(4),
        "w_dec": torch.eye(4),
        "b_dec": torch.zeros(4),
        "threshold": torch.full((4,), threshold or 0.0),
    }
    return dictionary_of(architecture, tensors, {"k": k} if k is not None else {})


@pytest.mark.parametrize(("share", "near"), [(0.5, 1), (0.9, 1), (1.1, 0), (50.0, 0)])
@pytest.mark.parametrize("architecture", ["topk", "jumprelu", "batchtopk", "standard"])
def test_a_latent_is_near_the_edge_within_the_stated_share_of_what_is_summed(
    architecture, share, near
):
    # the row is 256 long and every encoder column 1, so one slack is ROUNDING * 256
    slack = ROUNDING * 256
    edge = {"topk": 100.0, "jumprelu": 100.0, "batchtopk": 100.0, "standard": 0.0}[architecture]
    slacks = 2 if architecture == "topk" else 1
    value = edge + share * slacks * slack
    left_out = edge if architecture == "topk" else -1.0
    rest = (256.0**2 - value**2 - left_out**2) ** 0.5
    x = torch.tensor([[value, left_out, rest, -1.0]], dtype=torch.float64)
    thresholds = {"jumprelu": 100.0, "batchtopk": 100.0}
    k = 2 if architecture == "topk" else None
    dictionary = reading(architecture, k, thresholds.get(architecture))
    assert near_edge(dictionary, x.float()) == near


def test_the_pair_that_two_processors_chose_differently_is_counted():
    # 400.4257 and 400.4245 on a processor with AVX-512, of rows whose size is about 7,100
    x = torch.tensor([[400.4257, 400.4245, 7100.0, 0.0]])
    assert near_edge(reading("topk", k=2), x) == 1
    assert near_edge(reading("topk", k=2), x - torch.tensor([[0.0, 1.0, 0.0, 0.0]])) == 0


def test_what_is_summed_counts_and_not_what_is_left_of_it():
    dictionary = replace(reading("standard"), b_enc=torch.full((4,), -1000.0))
    small = replace(reading("standard"), b_enc=torch.full((4,), -0.001))
    assert near_edge(dictionary, torch.tensor([[1000.001, 0.0, 0.0, 0.0]])) == 1
    assert near_edge(small, torch.tensor([[0.002, 0.0, 0.0, 0.0]])) == 0


def test_a_topk_that_leaves_nothing_out_has_its_edge_at_zero():
    x = torch.tensor([[5.0, 5.0, 5.0, 1e-7]])
    assert near_edge(reading("topk", k=4), x) == 1
    assert near_edge(reading("topk", k=4), torch.full((1, 4), 5.0)) == 0
    assert near_edge(reading("topk", k=2), torch.tensor([[5.0, 5.0, -1.0, -1.0]])) == 0


def test_a_gate_that_hardly_opens_is_near_the_edge_however_large_the_magnitude():
    size = 100.0
    gated = Gated(
        w_enc=torch.full((1, 3), size),
        b_enc=torch.tensor([-size * (1 - 1e-7), -size / 2, -size / 2]),
        w_dec=torch.eye(3)[:, :1],
        b_dec=torch.zeros(1),
        r_mag=torch.tensor([3.0, 3.0, 3.0]),
        b_mag=torch.tensor([0.0, 0.0, -size * math.exp(3.0) * (1 - 1e-7)]),
    )
    found = encode(gated, torch.tensor([[1.0]]), 1, 3)
    assert found.nnz == 3
    assert near_edge(gated, torch.tensor([[1.0]])) == 2, "one by its gate, one by its magnitude"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_counting_changes_no_activation(architecture):
    dictionary = random_dictionary(architecture)
    x = dictionary.in_context(rows(40))
    expected = encode(dictionary, x, 7, 13)
    found, _ = encode_to_the_edge(dictionary, x, 7, 13, encoder_norms(dictionary))
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))
        assert getattr(found, part).dtype == getattr(expected, part).dtype
    assert found.has_sorted_indices


def twins(k: int) -> SparseDictionary:
    """Each latent twice: an odd k cuts a pair of equal ones apart in every row."""
    once = random_dictionary("topk", d_sae=40)
    return replace(
        once,
        w_enc=torch.cat([once.w_enc, once.w_enc], dim=1),
        b_enc=torch.cat([once.b_enc, once.b_enc]),
        w_dec=torch.cat([once.w_dec, once.w_dec]),
        k=k,
    )


@pytest.mark.parametrize("blocks", [(30, 80), (1, 80), (7, 13), (30, 40), (4, 1)])
def test_every_planted_tie_and_no_other_is_counted_whatever_the_blocks(blocks):
    assert near_edge(twins(7), rows(30), *blocks) == 30
    assert near_edge(twins(8), rows(30), *blocks) == 0


def test_no_rows_have_nothing_near_the_edge():
    assert near_edge(random_dictionary("topk"), rows(0), 4, 4) == 0
