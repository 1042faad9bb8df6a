"""Packed products against plain ones, and a model whose layers multiply by packed weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from loopscope.numerics.model import packing
from loopscope.numerics.model.packing import Packed, packed_layers

TOLERANCE = 1e-6
"""Of the largest number: sums of 64 to 192 products in float32 in another order."""


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found, expected):
    return float((found - expected).abs().max()) <= TOLERANCE * float(expected.abs().max()) * 4


@pytest.mark.parametrize("rows", [1, 5, 48, 300])
def test_a_packed_product_is_the_plain_one_for_any_number_of_rows(rows):
    matrix, given, bias = normal(0, 130, 192), normal(1, 2, rows, 192), normal(2, 130)
    packed = Packed(matrix)
    assert close(packed.product(given), given @ matrix.T)
    assert close(packed.product(given, bias), given @ matrix.T + bias)


def test_a_view_of_a_larger_matrix_is_packed_as_it_reads():
    matrix, given = normal(0, 64, 300).T[:130], normal(1, 7, 64)
    assert close(Packed(matrix).product(given), given @ matrix.T)


def test_numbers_that_are_none_go_through():
    matrix, given = normal(0, 130, 64), normal(1, 3, 64)
    given[1, 5] = float("nan")
    found = Packed(matrix).product(given)
    assert torch.isnan(found).all(dim=1).tolist() == [False, True, False]


def test_other_dtypes_are_multiplied_plainly():
    matrix, given = normal(0, 130, 64).bfloat16(), normal(1, 3, 64).bfloat16()
    assert torch.equal(Packed(matrix).product(given), nn.functional.linear(given, matrix))


def states(model):
    with torch.no_grad():
        return model.causal.body(
            input_ids=torch.tensor([model.encode("the capital of germany is")]), use_cache=False
        ).last_hidden_state


def linear_layers(model):
    return [m for block in model.causal.blocks for m in block.modules() if type(m) is nn.Linear]


def test_a_model_computes_the_same_with_packed_layers_and_is_as_before_afterwards(any_model):
    before = states(any_model)
    with packed_layers(any_model.causal.blocks):
        inside = states(any_model)
        wrapped = ["forward" in layer.__dict__ for layer in linear_layers(any_model)]
    assert all(wrapped) == packing.packs_layer(torch.zeros(2, 2)) or not wrapped
    assert torch.allclose(inside, before, rtol=1e-4, atol=1e-5)
    assert torch.equal(states(any_model), before)
    assert not any("forward" in layer.__dict__ for layer in linear_layers(any_model))


def test_layers_that_would_take_too_much_memory_stay_plain(any_model, monkeypatch):
    monkeypatch.setattr(packing, "PACKED_BYTES_MAX", 1_000)
    with packed_layers(any_model.causal.blocks):
        assert not any("forward" in layer.__dict__ for layer in linear_layers(any_model))
