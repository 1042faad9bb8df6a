from __future__ import annotations

import numpy as np
import pytest
import torch

from loopscope.numerics.statistics.sampling import (
    SamplingRule,
    choose_tokens,
    random_direction,
    uniforms,
)

LOGITS = torch.tensor([[0.0, 2.0, 1.0, -1.0]])


def every_draw(n: int = 20_000) -> torch.Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def shares(rule: SamplingRule) -> torch.Tensor:
    draws = every_draw()
    chosen = choose_tokens(LOGITS.expand(len(draws), -1), draws, rule)
    return torch.bincount(chosen, minlength=4) / len(draws)


def test_a_draw_does_not_depend_on_how_many_are_taken():
    assert np.array_equal(uniforms(0, "p", 0, 5), uniforms(0, "p", 0, 500)[:5])


def test_draws_differ_by_seed_prompt_and_sample_only():
    reference = uniforms(0, "p", 0, 8)
    assert np.array_equal(reference, uniforms(0, "p", 0, 8))
    for other in (uniforms(1, "p", 0, 8), uniforms(0, "q", 0, 8), uniforms(0, "p", 1, 8)):
        assert not np.allclose(reference, other)


def test_key_parts_cannot_run_into_one_another():
    assert not np.allclose(uniforms(0, "1", 12, 4), uniforms(0, "11", 2, 4))


def test_draws_are_uniform():
    drawn = np.concatenate([uniforms(0, f"p{i}", 0, 50) for i in range(200)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.01


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_shares_of_tokens_are_their_probabilities(temperature):
    expected = torch.softmax(LOGITS[0].double() / temperature, dim=0)
    found = shares(SamplingRule(temperature=temperature)).double()
    assert torch.allclose(found, expected, atol=1e-3)


def test_top_k_keeps_the_likeliest_and_their_proportions():
    expected = torch.softmax(LOGITS[0, [1, 2]].double(), dim=0)
    found = shares(SamplingRule(top_k=2))
    assert torch.allclose(found[[1, 2]].double(), expected, atol=1e-3)
    assert found[[0, 3]].sum() == 0


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    probabilities = torch.softmax(LOGITS[0], dim=0)
    just_one = float(probabilities[1]) - 0.01
    assert shares(SamplingRule(top_p=just_one))[1] == 1.0
    two = shares(SamplingRule(top_p=just_one + 0.02))
    assert (two > 0).tolist() == [False, True, True, False]


def test_greedy_and_top_one_take_the_likeliest_token():
    assert shares(SamplingRule(greedy=True))[1] == 1.0
    assert shares(SamplingRule(top_k=1))[1] == 1.0


def test_a_draw_of_zero_takes_the_likeliest_and_one_just_below_one_the_least_likely():
    draws = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert choose_tokens(LOGITS.expand(2, -1), draws, SamplingRule()).tolist() == [1, 3]


def test_equal_logits_are_ordered_by_token():
    draws = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
    chosen = choose_tokens(torch.zeros(4, 4), draws, SamplingRule(top_k=4))
    assert chosen.tolist() == [0, 1, 2, 3]


def test_rows_do_not_see_one_another():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 50, generator=generator)
    draws = torch.rand(9, generator=generator, dtype=torch.float64)
    rule = SamplingRule(temperature=0.8, top_k=10, top_p=0.9)
    together = choose_tokens(logits, draws, rule)
    order = torch.randperm(9, generator=generator)
    assert torch.equal(choose_tokens(logits[order], draws[order], rule), together[order])
    alone = [int(choose_tokens(logits[i : i + 1], draws[i : i + 1], rule)) for i in range(9)]
    assert alone == together.tolist()


def test_random_directions_are_unit_vectors_and_nearly_orthogonal():
    first, second = random_direction(0, 0, 640), random_direction(0, 1, 640)
    assert float(first.norm()) == pytest.approx(1.0, abs=1e-6)
    assert abs(float(first @ second)) < 0.2
    assert torch.equal(first, random_direction(0, 0, 640))
