from __future__ import annotations

import pytest
import torch
from torch import nn

from loopscope.numerics.model import logits
from loopscope.numerics.model.capture import HookNeverFired, NotFinite
from loopscope.numerics.model.causal_model import CausalModel
from loopscope.numerics.model.hooks import STREAMS, HookPlace, NoSuchPlace, width_at
from loopscope.numerics.statistics.sampling import SamplingRule, uniforms
from loopscope.numerics.steering.generation import drawn_again, generate
from loopscope.numerics.steering.intervention import Intervention
from loopscope.numerics.steering.passes import Steering, read_openings, steered_states
from tests.drawn import adding, assert_drawn_alike, next_logits

TEXTS = [
    "the capital of germany is",
    "a child",
    "the old house near the sea saw a small train and",
    "people in rome liked the quiet",
]
STEPS = 6
SAMPLED = SamplingRule(temperature=0.9, top_k=20)
GREEDY = SamplingRule(greedy=True)
WIDE = SamplingRule(temperature=0.8)
PLACES = [HookPlace(1, "resid_post"), HookPlace(1, "resid_pre")]


def rows_of(model, scale=3.0):
    """Four openings, each with its own vector; the last is unsteered."""
    openings = [model.encode(text) for text in TEXTS]
    vectors = torch.randn(4, model.d_model, generator=torch.Generator().manual_seed(3)) * scale
    vectors[3] = 0
    draws = torch.stack([torch.from_numpy(uniforms(0, t, 0, STEPS)) for t in TEXTS])
    return openings, vectors, draws


def run(model, openings, vectors, draws, rule=SAMPLED, place=PLACES[0], eos=frozenset()):
    return generate(
        model.causal, place, openings, Intervention(vectors), draws, rule, eos_tokens=eos,
        pad_token=model.pad_token,
    ).tokens  # fmt: skip


def alone(model, openings, vectors, place=PLACES[0]):
    """The slow reference: logits of a row's whole sequence anew, BOS at position 0 unsteered."""
    return lambda row, tokens: next_logits(
        model, [*openings[row], *tokens], place, adding(vectors[row])
    )


def greedy(logits, row):
    tokens = []
    for _ in range(STEPS):
        tokens.append(int(logits(row, tokens).argmax()))
    return tokens


@pytest.mark.parametrize("place", PLACES, ids=["post", "pre"])
def test_a_steered_run_with_cache_and_padding_is_the_run_without_either(any_model, place):
    openings, vectors, draws = rows_of(any_model)
    found = run(any_model, openings, vectors, draws, GREEDY, place)
    slow = alone(any_model, openings, vectors, place)
    expected = [greedy(slow, row) for row in range(len(openings))]
    assert_drawn_alike(found, expected, slow, draws, GREEDY)


def test_steering_changes_the_text(any_model):
    openings, vectors, draws = rows_of(any_model)
    steered = run(any_model, openings, vectors, draws)
    plain = run(any_model, openings, vectors * 0, draws)
    assert steered[:3] != plain[:3]
    slow = alone(any_model, openings, vectors)
    assert_drawn_alike(
        steered[3:], plain[3:], lambda _, tokens: slow(3, tokens), draws[3:], SAMPLED
    )


def test_without_a_vector_the_text_is_that_of_hugging_face(any_model):
    openings, vectors, draws = rows_of(any_model)
    found = run(any_model, openings, vectors * 0, draws, GREEDY)
    expected = []
    for opening in openings:
        with torch.no_grad():
            tokens = any_model.hf_model.generate(
                torch.tensor([opening]), do_sample=False, max_new_tokens=STEPS,
                min_new_tokens=STEPS, eos_token_id=[], pad_token_id=any_model.pad_token,
            )  # fmt: skip
        expected.append(tokens[0, len(opening) :].tolist())
    slow = alone(any_model, openings, vectors * 0)
    assert_drawn_alike(found, expected, slow, draws, GREEDY)


def test_a_row_is_the_same_alone_and_in_a_batch_in_any_order(any_model):
    openings, vectors, draws = rows_of(any_model)
    together = run(any_model, openings, vectors, draws)
    single = [
        run(any_model, openings[i : i + 1], vectors[i : i + 1], draws[i : i + 1])[0]
        for i in range(4)
    ]
    order = [2, 0, 3, 1]
    shuffled = run(any_model, [openings[i] for i in order], vectors[order], draws[order])
    slow = alone(any_model, openings, vectors)
    assert_drawn_alike(single, together, slow, draws, SAMPLED)
    in_order = [shuffled[order.index(i)] for i in range(4)]
    assert_drawn_alike(in_order, together, slow, draws, SAMPLED)


def test_arms_of_one_prompt_see_the_same_numbers(any_model):
    openings, _, draws = rows_of(any_model)
    zero = torch.zeros(3, any_model.d_model)
    found = run(any_model, [openings[0]] * 3, zero, draws[:1].expand(3, -1))
    assert found[0] == found[1] == found[2]


def test_a_row_stops_at_eos_and_its_neighbours_go_on(any_model):
    openings, vectors, draws = rows_of(any_model)
    free = run(any_model, openings, vectors, draws)
    end = free[0][2]
    stopped = run(any_model, openings, vectors, draws, eos=frozenset({end}))
    expected = [row[: row.index(end)] if end in row else row for row in free]
    assert_drawn_alike(stopped, expected, alone(any_model, openings, vectors), draws, SAMPLED)
    assert len(stopped[0]) <= 2


def test_tokens_are_counted_up_to_the_end_of_each_row(any_model):
    openings, vectors, draws = rows_of(any_model)
    end = run(any_model, openings, vectors, draws)[0][2]
    found = generate(
        any_model.causal, PLACES[0], openings, Intervention(vectors), draws, SAMPLED,
        eos_tokens=frozenset({end}), pad_token=any_model.pad_token,
    )  # fmt: skip
    assert found.after_steered == [len(tokens) for tokens in found.tokens]
    assert found.opening_steered == [len(opening) - 1 for opening in openings]


def test_generation_ends_when_every_row_has_ended(any_model):
    openings, vectors, draws = rows_of(any_model)
    steps = []
    generate(
        any_model.causal, PLACES[0], openings, Intervention(vectors), draws, SAMPLED,
        eos_tokens=frozenset(range(200)), pad_token=any_model.pad_token, on_step=steps.append,
    )  # fmt: skip
    assert steps == [1]


def test_no_hook_stays_behind(any_model):
    openings, vectors, draws = rows_of(any_model)
    clean = run(any_model, openings, vectors * 0, draws)
    for place in PLACES:
        run(any_model, openings, vectors, draws, place=place)
    tokens = torch.tensor([openings[0]])
    with torch.no_grad():
        before = any_model.hf_model(input_ids=tokens).logits
        with pytest.raises(NotFinite):
            run(any_model, openings, vectors * float("nan"), draws)
        after = any_model.hf_model(input_ids=tokens).logits
    assert torch.equal(before, after)
    assert run(any_model, openings, vectors * 0, draws) == clean


def test_a_block_that_is_never_entered_is_an_error(any_model):
    openings, vectors, draws = rows_of(any_model)
    elsewhere = CausalModel(any_model.causal.body, [nn.Identity()] * 4, any_model.causal.head)
    with pytest.raises(HookNeverFired, match="fired 0 times"):
        generate(
            elsewhere, PLACES[0], openings, Intervention(vectors), draws, SAMPLED,
            eos_tokens=frozenset(), pad_token=any_model.pad_token,
        )  # fmt: skip


def test_a_vector_that_breaks_the_model_is_an_error(any_model):
    openings, vectors, draws = rows_of(any_model)
    vectors[1] = float("inf")
    with pytest.raises(NotFinite, match="NaN or infinity"):
        run(any_model, openings, vectors, draws)


@pytest.mark.parametrize("place", PLACES, ids=["post", "pre"])
def test_states_of_one_text_under_many_vectors_are_those_of_single_runs(any_model, place):
    openings, vectors, _ = rows_of(any_model)
    cells = Intervention(vectors)
    together = steered_states(any_model.causal, place, openings[2], cells)
    for cell in range(4):
        alone = steered_states(any_model.causal, place, openings[2], cells[cell : cell + 1])[0]
        assert (together[cell] - alone).norm() / alone.norm() < 1e-5
    with torch.no_grad():
        clean = any_model.causal.body(input_ids=torch.tensor([openings[2]])).last_hidden_state[0]
    assert (together[3] - clean).norm() / clean.norm() < 1e-5
    assert torch.allclose(together[:, 0], clean[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stream", STREAMS)
def test_rows_that_share_an_opening_are_as_rows_that_do_not(any_model, stream):
    place = HookPlace(1, stream)
    try:
        width = width_at(any_model.causal, place)
    except NoSuchPlace:
        pytest.skip(f"this family has no {stream}")
    openings, _, draws = rows_of(any_model)
    vectors = torch.randn(4, width, generator=torch.Generator().manual_seed(3)) * 3
    shared = [openings[1], openings[2], openings[1], openings[2]]
    together = run(any_model, shared, vectors, draws, place=place)
    single = [
        run(any_model, [shared[i]], vectors[i : i + 1], draws[i : i + 1], place=place)[0]
        for i in range(4)
    ]
    slow = alone(any_model, shared, vectors, place)
    assert_drawn_alike(together, single, slow, draws, SAMPLED)


def test_below_the_hook_shared_openings_are_read_once(any_model):
    openings, vectors, _ = rows_of(any_model)
    place = HookPlace(2, "resid_pre")
    seen = []
    handle = any_model.causal.blocks[0].register_forward_pre_hook(
        lambda _block, inputs, named: seen.append(
            (inputs or (named["hidden_states"],))[0].shape[0]
        ),
        with_kwargs=True,
    )
    steering = Steering(Intervention(vectors))
    try:
        read_openings(
            any_model.causal, place, [openings[1], *[openings[2]] * 3], steering,
            any_model.pad_token, use_cache=False,
        )  # fmt: skip
    finally:
        handle.remove()
    assert seen[0] == 2, "four rows, two openings"


@pytest.mark.parametrize("rule", [SAMPLED, GREEDY, WIDE])
def test_a_text_is_drawn_again_from_its_own_beginnings(any_model, rule):
    openings, vectors, draws = rows_of(any_model)
    texts = run(any_model, openings, vectors, draws, rule)
    again = drawn_again(
        any_model.causal, PLACES[0], openings, texts, Intervention(vectors), draws, rule,
        pad_token=any_model.pad_token,
    )  # fmt: skip
    assert_drawn_alike(again, texts, alone(any_model, openings, vectors), draws, rule)


def test_a_text_that_ended_draws_its_end_again_and_another_text_is_found_out(any_model):
    openings, vectors, draws = rows_of(any_model)
    free = run(any_model, openings, vectors, draws)
    end = free[0][2]
    texts = run(any_model, openings, vectors, draws, eos=frozenset({end}))
    own = texts[1][1]
    texts[1] = [texts[1][0], (own + 1) % 100, *texts[1][2:]]
    again = drawn_again(
        any_model.causal, PLACES[0], openings, texts, Intervention(vectors), draws, SAMPLED,
        pad_token=any_model.pad_token,
    )  # fmt: skip
    assert again[0] == [*texts[0], end]
    assert again[1][1] == own != texts[1][1]


def test_reading_a_head_roughly_first_generates_the_same_texts(any_model, monkeypatch):
    openings, vectors, draws = rows_of(any_model)
    plain = run(any_model, openings, vectors, draws)
    monkeypatch.setattr(logits, "VOCABULARY_MIN", 1)
    monkeypatch.setattr(logits, "_multiplies_bfloat16", lambda: True)
    rough = run(any_model, openings, vectors, draws)
    assert_drawn_alike(rough, plain, alone(any_model, openings, vectors), draws, SAMPLED)


def test_samples_of_an_opening_begin_together_and_write_what_each_writes_alone(any_model):
    texts = [TEXTS[0], TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[1]]
    openings = [any_model.encode(text) for text in texts]
    one, other = torch.randn(2, any_model.d_model, generator=torch.Generator().manual_seed(3)) * 3
    vectors = torch.stack([one, one, one, other, one])
    draws = torch.stack([torch.from_numpy(uniforms(0, "s", n, STEPS)) for n in range(5)])
    found = run(any_model, openings, vectors, draws)
    assert found[0] != found[1], "they draw differently"
    reference = alone(any_model, openings, vectors)
    single = [
        run(any_model, openings[n : n + 1], vectors[n : n + 1], draws[n : n + 1])[0]
        for n in range(5)
    ]
    assert_drawn_alike(found, single, reference, draws, SAMPLED)
