from __future__ import annotations

import math

import pytest
import torch

from loopscope.numerics.model import logits
from loopscope.numerics.model.causal_model import OutputHead
from loopscope.numerics.model.hooks import STREAMS, HookPlace, NoSuchPlace, width_at
from loopscope.numerics.steering import scores
from loopscope.numerics.steering.fixed_text import carried_on, read_text
from loopscope.numerics.steering.intervention import Intervention
from loopscope.numerics.steering.passes import steered_states
from loopscope.numerics.steering.scores import (
    kl_of_states,
    token_nll,
)
from tests.every_position import loss_rise, next_token_kl

PLACE = HookPlace(1, "resid_post")


@pytest.fixture
def tiny_chunks(monkeypatch):
    for name in ("TOKENS_PER_BLOCK", "TOKENS_PER_BLOCK_AVX2"):
        monkeypatch.setattr(logits, name, ((20, 7),))
    monkeypatch.setattr(scores, "STATES_PER_CHUNK", 5)


@pytest.fixture(params=["plain", "capped"])
def head(request) -> OutputHead:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(53, 6, generator=generator)
    if request.param == "plain":
        return OutputHead(weight)
    return OutputHead(weight, torch.randn(53, generator=generator), scale=0.5, softcap=3.0)


def states(*shape):
    return torch.randn(*shape, 6, generator=torch.Generator().manual_seed(1)) * 2


def test_logits_of_a_capped_head_by_hand():
    head = OutputHead(torch.tensor([[2.0], [-1.0]]), torch.tensor([0.0, 1.0]), 0.5, 3.0)
    found = head(torch.tensor([[4.0]]))
    assert found.tolist() == [
        pytest.approx([3 * math.tanh(4.0 / 3), 3 * math.tanh(-1.5 / 3)], rel=1e-6)
    ]


def test_nll_streamed_over_the_vocabulary_is_the_plain_one(head, tiny_chunks):
    x, targets = states(11), torch.arange(11) * 5 % 53
    expected = -torch.log_softmax(head(x).double(), dim=-1).gather(1, targets[:, None])[:, 0]
    assert torch.allclose(token_nll(head, x, targets), expected, rtol=1e-5)


def test_kl_streamed_over_the_vocabulary_is_the_plain_one(head, tiny_chunks):
    x = states(4, 3)
    logs = torch.log_softmax(head(x.reshape(12, 6)).double(), dim=-1).view(4, 3, -1)
    expected = (logs[:1].exp() * (logs[:1] - logs[1:])).sum(dim=-1)
    found = kl_of_states(head, x)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert (found >= 0).all()


def test_kl_of_a_case_by_hand():
    head = OutputHead(torch.tensor([[1.0], [0.0]]))
    found = kl_of_states(head, torch.tensor([[[math.log(3)]], [[0.0]]]))
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_kl_of_a_state_to_itself_is_zero(head):
    x = states(1, 3)
    assert float(kl_of_states(head, torch.cat([x, x])).max()) < 1e-6


def test_kl_survives_large_logits(tiny_chunks):
    head = OutputHead(torch.linspace(-500, 500, 53)[:, None])
    found = kl_of_states(head, torch.tensor([[[1.0]], [[0.5]], [[-1.0]]]))
    assert torch.isfinite(found).all()
    assert float(found[1]) == pytest.approx(1000, rel=1e-3)


def test_next_token_kl_is_that_of_plain_forward_passes(any_model):
    tokens = any_model.encode("the old market in the quiet city sold bread")
    vectors = torch.randn(3, any_model.d_model, generator=torch.Generator().manual_seed(0)) * 3
    vectors[0] = 0
    found = next_token_kl(any_model.causal, PLACE, tokens, Intervention(vectors))
    assert found.shape == (3, len(tokens) - 1)
    assert float(found[0].max()) < 1e-5
    clean = torch.tensor([tokens])
    with torch.no_grad():
        p = torch.log_softmax(any_model.hf_model(input_ids=clean).logits[0, 1:].double(), dim=-1)
        steered = steered_states(any_model.causal, PLACE, tokens, Intervention(vectors))[1, 1:]
        q = torch.log_softmax(any_model.causal.head(steered).double(), dim=-1)
    expected = (p.exp() * (p - q)).sum(dim=-1)
    assert torch.allclose(found[1], expected, rtol=1e-3, atol=1e-5)
    assert float(found[1].mean()) > 0.01


@pytest.mark.parametrize("stream", STREAMS)
def test_a_pass_that_begins_at_the_hook_is_the_whole_pass(any_model, stream):
    tokens = any_model.encode("the old market in the quiet city sold bread")
    for block in range(any_model.n_layers):
        place = HookPlace(block, stream)
        try:
            width = width_at(any_model.causal, place)
        except NoSuchPlace as error:
            pytest.skip(str(error))
        vectors = torch.randn(2, width, generator=torch.Generator().manual_seed(0)) * 3
        text = read_text(any_model.causal, place, tokens, [2, 5])
        found = carried_on(any_model.causal, text, Intervention(vectors))
        whole = steered_states(any_model.causal, place, tokens, Intervention(vectors))[:, [2, 5]]
        assert torch.allclose(found, whole, rtol=1e-4, atol=1e-4), place
        again = read_text(any_model.causal, place, tokens, [2, 5])
        assert torch.equal(again.states, text.states), "and leaves the model as it was"


def test_a_text_is_read_no_further_than_its_last_position(any_model):
    tokens = any_model.encode("the old market in the quiet city sold bread")
    text = read_text(any_model.causal, PLACE, tokens, [2, 5])
    assert text.residual.shape[1] == 6
    assert text.following() == [tokens[3], tokens[6]]


def test_the_loss_of_a_text_rises_by_what_two_plain_forward_passes_say(any_model):
    tokens = any_model.encode("the old market in the quiet city sold bread")
    vectors = torch.randn(2, any_model.d_model, generator=torch.Generator().manual_seed(0)) * 3
    vectors[0] = 0
    found = loss_rise(any_model.causal, PLACE, tokens, Intervention(vectors))
    assert found.shape == (2, len(tokens) - 2)
    assert float(found[0].abs().max()) < 1e-5
    following = torch.tensor(tokens[2:])[:, None]
    with torch.no_grad():
        clean = any_model.hf_model(input_ids=torch.tensor([tokens])).logits[0, 1:-1].double()
        steered = steered_states(any_model.causal, PLACE, tokens, Intervention(vectors))[1, 1:-1]
        moved = any_model.causal.head(steered).double()
    losses = [-torch.log_softmax(z, dim=-1).gather(1, following)[:, 0] for z in (clean, moved)]
    assert torch.allclose(found[1], losses[1] - losses[0], rtol=1e-3, atol=1e-5)


def test_a_long_text_is_measured_in_parts_and_comes_out_the_same(any_model, monkeypatch):
    tokens = any_model.encode("the old market in the quiet city sold bread")
    vectors = torch.randn(2, any_model.d_model, generator=torch.Generator().manual_seed(0)) * 3
    text = read_text(any_model.causal, PLACE, tokens, range(1, len(tokens) - 1))
    (whole,) = scores.text_kl(any_model.causal, [text], Intervention(vectors))
    monkeypatch.setattr(scores, "STATES_PER_CHUNK", 7)
    (parts,) = scores.text_kl(any_model.causal, [text], Intervention(vectors))
    assert whole.shape == (2, len(tokens) - 2) and float(whole.max()) > 0
    assert torch.allclose(parts, whole, rtol=1e-4, atol=1e-7)
