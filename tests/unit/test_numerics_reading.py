"""Reading text with the unsteered model, against plain Hugging Face."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loopscope.numerics.model.batching import pad
from loopscope.numerics.model.capture import HookNeverFired
from loopscope.numerics.model.hooks import HookPlace, NoSuchPlace, width_at
from loopscope.numerics.statistics.sampling import SamplingRule, uniforms
from loopscope.numerics.steering import reading
from loopscope.numerics.steering.generation import generate
from loopscope.numerics.steering.intervention import Intervention
from loopscope.numerics.steering.reading import (
    Continuation,
    read_continuations,
    read_kept,
    reading_of,
    residuals_of,
    text_means,
)

PLACES = (HookPlace(1, "resid_post"), HookPlace(2, "resid_pre"), HookPlace(0, "resid_pre"))
TEXTS = [[5, 9, 30, 8], [40], [7, 7, 12, 50, 51, 52, 20], [33, 4]]


def reference_nll(model, opening, continuation):
    tokens = torch.tensor([[*opening, *continuation]])
    with torch.no_grad():
        logs = torch.log_softmax(model.hf_model(input_ids=tokens).logits[0].double(), dim=-1)
    start = len(opening)
    return -np.mean([float(logs[start + i - 1, t]) for i, t in enumerate(continuation)])


def read(model, texts, places=()):
    opening = model.encode("the capital of japan is")
    continuations = [Continuation(0, tuple(text)) for text in texts]
    return opening, read_continuations(
        model.causal, [opening], continuations, places, model.pad_token
    )


def test_continuations_scored_together_score_as_if_alone(any_model):
    opening, found = read(any_model, TEXTS)
    expected = [reference_nll(any_model, opening, text) for text in TEXTS]
    assert found.nll.tolist() == pytest.approx(expected, rel=1e-5)


def test_the_states_are_those_of_the_generated_tokens_alone_and_in_order(any_model):
    opening, found = read(any_model, TEXTS, PLACES)
    assert found.lengths == [4, 1, 7, 2]
    expected = {place: [] for place in PLACES}
    for text in TEXTS:
        with torch.no_grad():
            states = any_model.hf_model(
                input_ids=torch.tensor([[*opening, *text]]), output_hidden_states=True
            ).hidden_states
        for place in PLACES:
            layer = place.first_block_above
            expected[place].append(states[layer][0, len(opening) :])
    for place in PLACES:
        together = torch.cat(expected[place])
        assert torch.allclose(found.states[place], together, rtol=1e-4, atol=1e-4)


def test_the_place_after_a_block_is_the_place_before_the_next(any_model):
    _, found = read(any_model, TEXTS, PLACES[:2])
    assert torch.equal(found.states[PLACES[0]], found.states[PLACES[1]])


def test_no_texts_read_as_nothing_and_an_empty_text_is_refused(any_model):
    _, found = read(any_model, [], PLACES)
    assert found.nll.shape == (0,)
    assert found.states[PLACES[0]].shape == (0, any_model.d_model)
    with pytest.raises(ValueError, match="without tokens"):
        read(any_model, [[5], []])


def test_means_are_over_the_tokens_of_each_text():
    values = torch.tensor([[1.0], [3.0], [10.0]])
    assert text_means(values, [2, 1]).tolist() == [[2.0], [10.0]]


def test_texts_of_several_openings_are_read_together_as_if_alone(any_model):
    openings = [any_model.encode(text) for text in ("a child", "the capital of japan is", "rome")]
    texts = [Continuation(n, tuple(text)) for n in (2, 0, 1) for text in TEXTS]
    found = read_continuations(any_model.causal, openings, texts, (), any_model.pad_token)
    expected = [reference_nll(any_model, openings[t.opening], t.tokens) for t in texts]
    assert found.nll.tolist() == pytest.approx(expected, rel=1e-5)


def test_what_stands_before_tokens_of_several_texts_is_unembedded_once(any_model, monkeypatch):
    texts = [[5, 9, 30], [5, 9, 31, 8], [5, 9, 30, 8], [7]]
    asked = []
    own = reading.token_nll

    def counted(head, states, *rest):
        asked.append(len(states))
        return own(head, states, *rest)

    monkeypatch.setattr(reading, "token_nll", counted)
    opening, found = read(any_model, texts)
    expected = [reference_nll(any_model, opening, text) for text in texts]
    assert found.nll.tolist() == pytest.approx(expected, rel=1e-5)
    assert asked == [5], "after nothing, 5, 5 9, 5 9 31 and 5 9 30"


@pytest.mark.parametrize("place", PLACES)
def test_a_pass_that_ends_at_a_place_has_what_a_whole_pass_has_there(any_model, place):
    batch = pad([[2, 5, 9, 30], [2, 7]], any_model.pad_token, "right")
    with torch.no_grad():
        states = any_model.hf_model(
            input_ids=batch.tokens, attention_mask=batch.mask.long(), output_hidden_states=True
        ).hidden_states[place.first_block_above]
    found = residuals_of(any_model.causal, place, batch)
    assert torch.allclose(found[batch.mask], states[batch.mask], rtol=1e-4, atol=1e-4)


HOOKS = [
    HookPlace(1, "resid_post"), HookPlace(1, "resid_pre"), HookPlace(1, "resid_mid"),
    HookPlace(1, "mlp_out"), HookPlace(0, "resid_post"), HookPlace(0, "resid_pre"),
]  # fmt: skip
DECODED = ["a child", "the capital of japan is", "a child", "the old house near the sea"]


def decoded(model, hook, places, steps=6, eos=frozenset()):
    """Four steered rows, two of one opening, with what decoding kept of them."""
    openings = [model.encode(text) for text in DECODED]
    vectors = torch.randn(4, model.d_model, generator=torch.Generator().manual_seed(3)) * 3
    draws = torch.stack([torch.from_numpy(uniforms(n, "d", 0, steps)) for n in range(4)])
    found = generate(
        model.causal, hook, openings, Intervention(vectors), draws, SamplingRule(0.9, 20),
        eos_tokens=eos, pad_token=model.pad_token, keep=places,
    )  # fmt: skip
    return openings, found


def both_ways(model, hook, places, eos=frozenset()):
    openings, found = decoded(model, hook, places, eos=eos)
    rows = [row for row, tokens in enumerate(found.tokens) if tokens]
    texts = [Continuation(row, tuple(found.tokens[row])) for row in rows]
    whole = read_continuations(model.causal, openings, texts, places, model.pad_token)
    kept = read_kept(model.causal, found.kept, rows, texts, places)
    return texts, whole, reading_of(model.causal, [kept], places)


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: f"{hook.block}-{hook.stream}")
def test_a_steered_text_reads_from_its_hook_on_as_it_reads_whole(any_model, hook):
    try:
        width_at(any_model.causal, hook)
    except NoSuchPlace:
        pytest.skip("this model's blocks have no such place")
    last = HookPlace(len(any_model.causal.blocks) - 1, "resid_post")
    places = [HookPlace(1, "resid_post"), HookPlace(0, "resid_post"), last]
    _, whole, kept = both_ways(any_model, hook, places)
    assert kept.lengths == whole.lengths
    assert torch.allclose(kept.nll, whole.nll, rtol=1e-4)
    for place in places:
        assert torch.allclose(kept.states[place], whole.states[place], rtol=1e-4, atol=1e-4)


def test_texts_that_end_early_read_from_their_hook_on_as_whole(any_model):
    hook = HookPlace(1, "resid_post")
    _, found = decoded(any_model, hook, [])
    eos = frozenset({found.tokens[0][2], found.tokens[1][4]})
    texts, whole, kept = both_ways(any_model, hook, [hook], eos)
    assert min(len(text.tokens) for text in texts) < 6
    assert torch.allclose(kept.nll, whole.nll, rtol=1e-4)
    assert torch.allclose(kept.states[hook], whole.states[hook], rtol=1e-4, atol=1e-4)


def test_keeping_what_is_seen_changes_no_text(any_model):
    hook = HookPlace(1, "resid_post")
    assert decoded(any_model, hook, [hook])[1].tokens == decoded(any_model, hook, None)[1].tokens


def test_a_place_that_was_not_kept_is_not_read_as_something_else(any_model):
    hook, below = HookPlace(1, "resid_post"), HookPlace(0, "resid_post")
    _, found = decoded(any_model, hook, [hook])
    with pytest.raises(HookNeverFired, match="not kept"):
        read_kept(
            any_model.causal, found.kept, [0], [Continuation(0, tuple(found.tokens[0]))], [below]
        )
