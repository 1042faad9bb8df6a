"""Half-precision products in float32 against a float64 reference, and models that multiply so."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from loopscope.numerics.model import half_precision
from loopscope.numerics.model.batching import pad
from loopscope.numerics.model.half_precision import linear, widen_products

ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
"""Unit roundoff: what is summed in float32 is rounded once."""


@pytest.fixture(params=[True, False], ids=["no instructions", "instructions"])
def is_slow(monkeypatch, request):
    """Let the processor have no instructions for half precision, or have them."""
    halves = (torch.bfloat16, torch.float16)
    monkeypatch.setattr(
        half_precision, "is_slow", lambda weight: request.param and weight.dtype in halves
    )
    return request.param


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("rows", [1, 63, 64, 200])
def test_a_product_is_the_exact_one_rounded_once(is_slow, dtype, rows, monkeypatch):
    monkeypatch.setattr(half_precision, "WEIGHTS_WIDENED_TOGETHER", 50)
    given, weight, bias = (
        normal(n, *s).to(dtype) for n, s in enumerate([(2, rows, 96), (130, 96), (130,)])
    )
    found = linear(given, weight, bias)
    exact = given.double() @ weight.double().T + bias.double()
    assert found.dtype == dtype and found.shape == (2, rows, 130)
    size = given.double().abs() @ weight.double().abs().T + bias.double().abs()
    assert bool(((found - exact).abs() <= ROUNDING[dtype] * exact.abs() + 1e-5 * size).all())


def test_float32_is_multiplied_as_ever():
    given, weight = normal(0, 100, 96), normal(1, 130, 96)
    assert torch.equal(linear(given, weight), nn.functional.linear(given, weight))


def test_numbers_that_are_none_go_through(is_slow):
    given, weight = normal(0, 70, 64).bfloat16(), normal(1, 130, 64).bfloat16()
    given[5, 5] = float("nan")
    found = torch.isnan(linear(given, weight))
    assert found[5].all() and not found[:5].any() and not found[6:].any()


def test_a_batch_without_rows_gives_none(is_slow):
    assert linear(torch.zeros(0, 8).bfloat16(), torch.zeros(3, 8).bfloat16()).shape == (0, 3)


def test_a_model_in_bfloat16_computes_the_same_either_way(rope_model, monkeypatch):
    plain = copy.deepcopy(rope_model.hf_model).bfloat16()
    batch = pad([rope_model.encode("the capital of france is paris")] * 20, 0, "right")

    def logits():
        with torch.no_grad():
            return plain(input_ids=batch.tokens, attention_mask=batch.mask.long()).logits.float()

    expected = logits()
    monkeypatch.setattr(half_precision, "is_slow", lambda weight: True)
    widened = widen_products(plain)
    assert widened > 0 and widen_products(plain) == 0, "a second time there is nothing to do"
    assert float((logits() - expected).abs().max()) <= 0.02 * float(expected.abs().max())


def test_weights_that_are_put_in_later_are_multiplied(monkeypatch):
    monkeypatch.setattr(half_precision, "is_slow", lambda weight: True)
    layer = nn.Linear(8, 4, bias=False).bfloat16()
    widen_products(layer)
    layer.weight = nn.Parameter(torch.ones(4, 8).bfloat16())
    assert torch.equal(layer(torch.ones(64, 8).bfloat16()), torch.full((64, 4), 8.0).bfloat16())
