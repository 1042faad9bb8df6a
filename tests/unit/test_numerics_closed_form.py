"""Steering on a toy model whose steered logits can be written down: W (E[token] + n u)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from loopscope.numerics.model.hooks import HookPlace
from loopscope.numerics.statistics.sampling import SamplingRule, uniforms
from loopscope.numerics.steering.budget import solve_strengths
from loopscope.numerics.steering.generation import generate
from loopscope.numerics.steering.intervention import Intervention
from loopscope.numerics.steering.passes import steered_states
from loopscope.numerics.steering.shift import token_shifts
from tests.drawn import assert_drawn_alike
from tests.every_position import next_token_kl
from tests.toy_model import toy_model

PLACE = HookPlace(0, "resid_post")
BOS, VOCABULARY, WIDTH = 0, 7, 5
GENERATOR = torch.Generator().manual_seed(0)
EMBEDDING = torch.randn(VOCABULARY, WIDTH, generator=GENERATOR)
UNEMBEDDING = torch.randn(VOCABULARY, WIDTH, generator=GENERATOR)
DIRECTION = torch.randn(WIDTH, generator=GENERATOR)
DIRECTION /= DIRECTION.norm()
MODEL = toy_model(EMBEDDING, UNEMBEDDING)


def closed_form(token, norm):
    """The next-token distribution after ``token`` with the direction added ``norm`` long."""
    logits = UNEMBEDDING.double() @ (EMBEDDING[token] + norm * DIRECTION).double()
    return torch.softmax(logits, dim=0).numpy()


def test_steered_states_are_the_embedding_plus_the_vector_but_for_bos():
    states = steered_states(MODEL, PLACE, [BOS, 3, 5], Intervention(2.0 * DIRECTION[None]))[0]
    assert torch.allclose(states[0], EMBEDDING[BOS])
    assert torch.allclose(states[1:], EMBEDDING[[3, 5]] + 2.0 * DIRECTION)


def test_divergence_is_that_of_the_closed_form():
    tokens = [BOS, 1, 4, 6]
    found = next_token_kl(MODEL, PLACE, tokens, Intervention(1.5 * DIRECTION[None]))[0]
    expected = [scipy.stats.entropy(closed_form(t, 0.0), closed_form(t, 1.5)) for t in tokens[1:]]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_the_budget_finds_the_norm_of_the_closed_form():
    tokens = [BOS, 1, 4, 6]
    wanted = np.mean(
        [scipy.stats.entropy(closed_form(t, 0.0), closed_form(t, 0.8)) for t in tokens[1:]]
    )

    def measure(_cells, norms, _texts):
        vectors = torch.tensor(norms)[:, None].float() * DIRECTION
        divergence = next_token_kl(MODEL, PLACE, tokens, Intervention(vectors))
        return divergence.mean(dim=1, keepdim=True).numpy()

    found = solve_strengths(
        measure, np.array([0]), np.array([wanted]), np.array([0.05]), strength_max=50.0,
        tolerance=1e-4,
    )  # fmt: skip
    assert found.strength[0] == pytest.approx(0.8, rel=1e-3)


@pytest.mark.parametrize("norm", [0.0, 1.0])
def test_sampled_tokens_have_the_frequencies_of_the_closed_form(norm):
    rows = 4_000
    draws = torch.from_numpy(np.stack([uniforms(0, f"row-{i}", 0, 1) for i in range(rows)]))
    vectors = (norm * DIRECTION).expand(rows, -1)
    found = generate(
        MODEL, PLACE, [[BOS, 2]] * rows, Intervention(vectors), draws, SamplingRule(),
        eos_tokens=frozenset(), pad_token=BOS,
    ).tokens  # fmt: skip
    counts = np.bincount([row[0] for row in found], minlength=VOCABULARY)
    expected = closed_form(2, norm) * rows
    assert scipy.stats.chisquare(counts, expected).pvalue > 0.001


def test_greedy_text_follows_the_argmax_of_the_closed_form_step_by_step():
    draws = torch.zeros(1, 6, dtype=torch.float64)
    (found,) = generate(
        MODEL, PLACE, [[BOS, 2]], Intervention(1.2 * DIRECTION[None]), draws,
        SamplingRule(greedy=True), eos_tokens=frozenset(), pad_token=BOS,
    ).tokens  # fmt: skip
    token, expected = 2, []
    for _ in range(6):
        token = int(closed_form(token, 1.2).argmax())
        expected.append(token)

    def logits(_row, tokens):
        return np.log(closed_form([2, *tokens][-1], 1.2))

    assert_drawn_alike([found], [expected], logits, draws, SamplingRule(greedy=True))


def test_the_shift_table_holds_the_probabilities_of_the_closed_form():
    vectors = torch.stack([torch.zeros(WIDTH), 1.2 * DIRECTION])
    states = steered_states(MODEL, PLACE, [BOS, 2], Intervention(vectors))[:, -1]
    ((rows,),) = token_shifts(MODEL.head, states[None])
    assert len(rows) == VOCABULARY
    for row in rows:
        assert row.probability_before == pytest.approx(closed_form(2, 0.0)[row.token], rel=1e-5)
        assert row.probability_after == pytest.approx(closed_form(2, 1.2)[row.token], rel=1e-5)
    assert math.fsum(row.probability_after for row in rows) == pytest.approx(1.0)
