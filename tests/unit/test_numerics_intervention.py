"""Clamping: latents are set to what an arm's vector stands for, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from loopscope.numerics.architectures import ARCHITECTURES, dictionary_of
from loopscope.numerics.architectures.standard import Standard
from loopscope.numerics.dictionaries.sparse import encode
from loopscope.numerics.model.hooks import HookPlace
from loopscope.numerics.statistics.sampling import SamplingRule, uniforms
from loopscope.numerics.steering.generation import generate
from loopscope.numerics.steering.intervention import Ablation, Intervention, LatentReader
from loopscope.numerics.steering.passes import steered_states
from tests.drawn import assert_drawn_alike, next_logits
from tests.every_position import loss_rise, next_token_kl
from tests.toy_model import toy_model

BOS, VOCABULARY, WIDTH, LATENTS = 0, 7, 6, 4
GENERATOR = torch.Generator().manual_seed(2)
EMBEDDING = torch.randn(VOCABULARY, WIDTH, generator=GENERATOR)
UNEMBEDDING = torch.randn(VOCABULARY, WIDTH, generator=GENERATOR)
ROWS = torch.linalg.qr(torch.randn(WIDTH, LATENTS, generator=GENERATOR)).Q.T.contiguous()
TIED = Standard(ROWS.T.contiguous(), torch.zeros(LATENTS), ROWS, 0.1 * torch.ones(WIDTH))
PLACE = HookPlace(0, "resid_post")
TEXT = [BOS, 1, 2, 3, 4, 5, 6]
TEXTS = ["the capital of germany is", "a child", "the old house near the sea saw a small train"]
STEPS = 5
TOY = toy_model(EMBEDDING, UNEMBEDDING)


def activations(dictionary, x):
    return torch.from_numpy(encode(dictionary, x, 1000, 1000).toarray())


def clamp(vectors, *members, dictionary=TIED, latents=(1, 3)):
    """Rows of vectors, each with 1 or 0 for each of ``latents``."""
    reader = LatentReader.of(dictionary, latents)
    return Intervention(torch.stack(vectors), Ablation(torch.tensor(members), (reader,)))


def test_a_clamped_latent_reads_what_was_wanted_and_everything_else_as_before():
    wanted = 1.7
    before = EMBEDDING[TEXT]
    steered = clamp([wanted * ROWS[1]], [1.0, 0.0])
    after = steered_states(TOY, PLACE, TEXT, steered)[0]
    old, new = activations(TIED, before), activations(TIED, after)
    assert (old[1:, 1] > 0).any(), "else nothing was ablated"
    assert torch.equal(after[0], before[0]), "BOS is not steered"
    # a latent whose pre-activation is below 0 has nothing to be ablated: the vector adds to that
    fired = (old[:, 1] > 0) & (torch.arange(len(TEXT)) > 0)
    assert new[fired, 1].tolist() == pytest.approx([wanted] * int(fired.sum()), rel=1e-5)
    assert torch.allclose(new[1:, [0, 2, 3]], old[1:, [0, 2, 3]], atol=1e-6)
    error_before = before - old @ ROWS - TIED.b_dec
    error_after = after - new @ ROWS - TIED.b_dec
    assert torch.allclose(error_after[fired], error_before[fired], atol=1e-6)


def test_two_latents_are_set_to_the_parts_of_their_weighted_sum():
    steered = clamp([0.5 * ROWS[1] + 2.0 * ROWS[3]], [1.0, 1.0])
    after = activations(TIED, steered_states(TOY, PLACE, TEXT, steered)[0])
    old = activations(TIED, EMBEDDING[TEXT])
    for latent, wanted in ((1, 0.5), (3, 2.0)):
        fired = (old[:, latent] > 0) & (torch.arange(len(TEXT)) > 0)
        assert fired.any()
        assert after[fired, latent].tolist() == pytest.approx([wanted] * int(fired.sum()))


def test_a_latent_that_does_not_fire_makes_clamping_plain_addition():
    silent = replace(TIED, b_enc=torch.full((LATENTS,), -100.0))
    vector = 1.3 * ROWS[1]
    clamped = steered_states(TOY, PLACE, TEXT, clamp([vector], [1.0, 1.0], dictionary=silent))
    added = steered_states(TOY, PLACE, TEXT, Intervention(vector[None]))
    assert torch.equal(clamped, added)


def test_a_zero_vector_still_clears_and_a_row_without_latents_does_nothing():
    zero = torch.zeros(WIDTH)
    ablated, alone = steered_states(TOY, PLACE, TEXT, clamp([zero, zero], [1.0, 1.0], [0.0, 0.0]))
    assert torch.equal(alone, EMBEDDING[TEXT])
    assert activations(TIED, ablated)[1:, [1, 3]].abs().max() < 1e-6
    assert activations(TIED, EMBEDDING[TEXT])[1:, [1, 3]].max() > 0.1


def test_divergence_and_loss_are_those_of_the_clamped_stream_against_the_clean_one():
    vector = 0.8 * ROWS[1]
    stream = EMBEDDING[TEXT] + vector - activations(TIED, EMBEDDING[TEXT])[:, [1]] * ROWS[1]
    steered = torch.softmax(stream.double() @ UNEMBEDDING.double().T, dim=1).numpy()
    clean = torch.softmax(EMBEDDING[TEXT].double() @ UNEMBEDDING.double().T, dim=1).numpy()
    arms = clamp([vector], [1.0, 0.0])
    divergence = next_token_kl(TOY, PLACE, TEXT, arms)[0]
    expected = [scipy.stats.entropy(clean[i], steered[i]) for i in range(1, len(TEXT))]
    assert divergence.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6)
    rise = loss_rise(TOY, PLACE, TEXT, arms)[0]
    lost = [np.log(clean[i, t] / steered[i, t]) for i, t in enumerate(TEXT[2:], start=1)]
    assert rise.tolist() == pytest.approx(lost, rel=1e-4, abs=1e-6)


def random_dictionary(architecture, width=32, latents=24):
    generator = torch.Generator().manual_seed(5)
    tensors = {
        "w_enc": torch.randn(width, latents, generator=generator) / 4,
        "b_enc": torch.randn(latents, generator=generator) / 10,
        "w_dec": torch.randn(latents, width, generator=generator),
        "b_dec": torch.randn(width, generator=generator) / 10,
        "threshold": torch.full((latents,), 0.3),
        "r_mag": torch.randn(latents, generator=generator) / 4,
        "b_mag": torch.randn(latents, generator=generator) / 10,
        "w_skip": torch.randn(width, width, generator=generator),
    }
    for name, size in {"query": 4, "key": 4, "value": latents, "mixed": latents}.items():
        for part, shape in (("w", (size, latents)), ("b", (size,))):
            tensors[f"{part}_{name}"] = torch.randn(shape, generator=generator) / 10
    settings = {"k": 4} if architecture in ("topk", "temporal") else {}
    if architecture == "temporal":
        settings |= {"heads": 2, "epsilon": 1e-6}
    writes = "transcoder" in architecture
    return dictionary_of(architecture, tensors, settings, apply_b_dec_to_input=not writes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_chosen_latents_read_as_in_a_full_encoding(architecture):
    dictionary = random_dictionary(architecture)
    x = torch.randn(50, 32, generator=torch.Generator().manual_seed(1))
    x = dictionary.in_context(x)
    chosen = [7, 2, 19]
    reader = LatentReader.of(dictionary, chosen)
    full = activations(dictionary, x)[:, chosen]
    assert (full > 0).any()
    assert (full == 0).any()
    assert torch.allclose(reader.activations(x), full, atol=1e-6)
    assert torch.equal(reader.rows, dictionary.w_dec[chosen])


def arms_of(architecture):
    """Three rows: two dictionaries' latents, one's, none."""
    generator = torch.Generator().manual_seed(3)
    readers = (
        LatentReader.of(random_dictionary(architecture), [7, 2, 19, 0, 1]),
        LatentReader.of(random_dictionary("standard", latents=40), [30, 4]),
    )
    member = torch.tensor([[1.0, 1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0]])
    return Intervention(3 * torch.randn(3, 32, generator=generator), Ablation(member, readers))


@pytest.mark.parametrize("architecture", ["batchtopk", "topk"])
@pytest.mark.parametrize("given", [1, 3], ids=["one row for all", "a row each"])
def test_each_row_clears_its_own_latents_of_every_dictionary(architecture, given):
    arms = arms_of(architecture)
    member = torch.tensor([[1.0, 1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 0]])
    arms = Intervention(arms.vectors, Ablation(member, arms.ablation.readers))
    hidden = 2 * torch.randn(given, 6, 32, generator=torch.Generator().manual_seed(9))
    mask = torch.tensor([[False, True, True, True, True, True]]).expand(3, -1)
    found = arms.applied(hidden, mask)
    dictionaries = [(random_dictionary(architecture), 0, [7, 2, 19, 0, 1])]
    dictionaries.append((random_dictionary("standard", latents=40), 5, [30, 4]))
    for row, h in enumerate(hidden.expand(3, -1, -1)):
        expected = h + arms.vectors[row]
        for dictionary, first, latents in dictionaries:
            read = activations(dictionary, h)
            for place, latent in enumerate(latents, start=first):
                ablated = read[:, [latent]] * dictionary.w_dec[latent]
                expected = expected - member[row, place] * ablated
        assert torch.allclose(found[row, 1:], expected[1:], atol=1e-4)
        assert torch.equal(found[row, 0], h[0])


def run(model, openings, arms, draws, place, rule):
    return generate(
        model.causal, place, openings, arms, draws, rule, eos_tokens=frozenset(),
        pad_token=model.pad_token,
    ).tokens  # fmt: skip


@pytest.mark.parametrize("architecture", ["standard", "topk"])
def test_a_clamped_row_is_the_same_alone_and_in_a_batch(any_model, architecture):
    arms, place, rule = arms_of(architecture), HookPlace(1, "resid_post"), SamplingRule(0.9, 20)
    openings = [any_model.encode(text) for text in TEXTS]
    draws = torch.stack([torch.from_numpy(uniforms(0, text, 0, STEPS)) for text in TEXTS])
    together = run(any_model, openings, arms, draws, place, rule)
    states, single = steered_states(any_model.causal, place, openings[2], arms), []
    for i in range(3):
        one = slice(i, i + 1)
        single.extend(run(any_model, openings[one], arms[one], draws[one], place, rule))
        lonely = steered_states(any_model.causal, place, openings[2], arms[one])[0]
        assert (states[i] - lonely).norm() / lonely.norm() < 1e-5
    slow = alone(any_model, openings, arms, place)
    assert_drawn_alike(single, together, slow, draws, rule)
    added = Intervention(arms.vectors)
    plain = steered_states(any_model.causal, place, openings[2], added)
    assert (states[0] - plain[0]).norm() / plain[0].norm() > 1e-3, "clamping did something"
    assert torch.allclose(states[2], plain[2], rtol=1e-5, atol=1e-5)


def change_of(arms):
    """The slow reference: what the only row of ``arms`` makes of a stream, token by token."""

    def change(hidden):
        changed = hidden.clone()
        for position in range(1, hidden.shape[1]):
            h, first = hidden[0, position], 0
            new = h + arms.vectors[0]
            for reader in arms.ablation.readers:
                found = reader.activations(h[None])[0]
                for latent in range(len(reader.columns)):
                    if arms.ablation.member[0, first + latent]:
                        new = new - found[latent] * reader.rows[latent]
                first += len(reader.columns)
            changed[0, position] = new
        return changed

    return change


def alone(model, openings, arms, place):
    """Logits of a row's whole sequence anew at each step, in a pass of its own."""
    return lambda row, tokens: next_logits(
        model, [*openings[row], *tokens], place, change_of(arms[row : row + 1])
    )


@pytest.mark.parametrize("architecture", ["jumprelu", "topk"])
def test_clamped_text_with_a_cache_is_that_of_full_recomputation(any_model, architecture):
    arms, place = arms_of(architecture), HookPlace(1, "resid_post")
    openings = [any_model.encode(text) for text in TEXTS]
    draws = torch.zeros(3, STEPS, dtype=torch.float64)
    found = run(any_model, openings, arms, draws, place, SamplingRule(greedy=True))
    slow, expected = alone(any_model, openings, arms, place), []
    for row in range(len(openings)):
        tokens = []
        for _ in range(STEPS):
            tokens.append(int(slow(row, tokens).argmax()))
        expected.append(tokens)
    assert_drawn_alike(found, expected, slow, draws, SamplingRule(greedy=True))
