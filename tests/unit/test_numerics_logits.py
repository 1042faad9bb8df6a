"""Logits by blocks of the vocabulary, against rows × vocabulary at once."""

from __future__ import annotations

import pytest
import torch

from loopscope.numerics.model import logits
from loopscope.numerics.model.capture import NotFinite
from loopscope.numerics.model.causal_model import OutputHead
from loopscope.numerics.model.logits import LargestLogits, Rough, blocks

VOCABULARY = 1_003


@pytest.fixture
def small_blocks(monkeypatch):
    for name in ("TOKENS_PER_BLOCK", "TOKENS_PER_BLOCK_AVX2"):
        monkeypatch.setattr(logits, name, ((4, 96), (10, 64)))
    monkeypatch.setattr(logits, "TOKENS_PER_BLOCK_MIN", 32)
    monkeypatch.setattr(logits, "ROUGH_TOKENS_PER_BLOCK", 64)


def a_head(vocabulary=VOCABULARY, width=24, **changes):
    weight = torch.randn(vocabulary, width, generator=torch.Generator().manual_seed(0))
    return OutputHead(weight, **changes)


def states(rows, width=24):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1)) * 3


HEADS = {
    "plain": a_head(),
    "small": a_head(41),
    "scaled and capped": a_head(scale=0.5, softcap=12.0),
    "biased": a_head(bias=torch.linspace(-1, 1, VOCABULARY)),
}


@pytest.fixture(params=HEADS)
def head(request):
    return HEADS[request.param]


@pytest.mark.parametrize("rows", [1, 7, 80])
def test_blocks_are_the_logits_whatever_their_size(head, rows, small_blocks):
    found = torch.cat([part.clone() for _, part in blocks(head, states(rows))])
    assert torch.allclose(found.T, head(states(rows)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 80])
@pytest.mark.parametrize("k", [1, 20, 50])
def test_the_largest_are_those_of_all_logits(head, rows, k, small_blocks):
    values, tokens = LargestLogits(head)(states(rows), k)
    expected = torch.topk(head(states(rows)), min(k, head.vocabulary), dim=1)
    assert torch.equal(tokens, expected.indices)
    assert torch.allclose(values, expected.values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 80])
@pytest.mark.parametrize("name", ["plain", "small", "scaled and capped"])
def test_a_head_that_is_read_roughly_first_names_the_same_tokens(name, rows, small_blocks):
    head = HEADS[name]
    values, tokens = LargestLogits(head, Rough.of(head.weight))(states(rows), 20)
    expected, same = LargestLogits(head)(states(rows), 20)
    assert torch.equal(tokens, same)
    assert torch.allclose(values, expected, rtol=1e-5, atol=1e-5)


def test_a_rough_product_is_off_by_no_more_than_its_bound():
    weight, hidden = a_head().weight * 100, states(9)
    rough = Rough.of(weight)
    products = (rough.weight @ hidden.bfloat16().T).double()
    exact = weight.double() @ hidden.double().T
    slack = rough.slack(hidden).repeat_interleave(logits.GROUP, dim=0)[:VOCABULARY]
    bound = slack + products.abs() * logits.ROUNDING
    error = (products - exact).abs()
    assert (error <= bound).all()
    assert float((error / bound).max()) > 0.05, "and the bound is no empty one"


def test_tokens_that_bfloat16_cannot_tell_apart_come_in_the_order_of_float32(small_blocks):
    weight = torch.ones(300, 4)
    weight[:, 0] = 1 + torch.linspace(0, 1e-3, 300)[torch.randperm(300)]
    head = OutputHead(weight)
    hidden = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    _, tokens = LargestLogits(head, Rough.of(weight))(hidden, 12)
    assert torch.equal(tokens[0], weight[:, 0].argsort(descending=True)[:12])


def test_equal_logits_come_by_token(small_blocks):
    head = OutputHead(torch.tensor([[1.0], [3.0]]).repeat(100, 1))
    _, tokens = LargestLogits(head)(torch.ones(2, 1), 5)
    assert tokens.tolist() == [[1, 3, 5, 7, 9]] * 2


@pytest.mark.parametrize("rough", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_is_an_error_with_its_row(rough, value, small_blocks):
    head = a_head()
    hidden = states(6)
    hidden[4, 2] = value
    with pytest.raises(NotFinite) as caught:
        LargestLogits(head, Rough.of(head.weight) if rough else None)(hidden, 5)
    assert caught.value.row == 4
