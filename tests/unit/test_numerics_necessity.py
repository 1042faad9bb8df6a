"""Necessity with a known truth: a direction the concept needs, and latents that look like it."""

import numpy as np
import pytest
import torch

from loopscope.numerics.architectures.standard import Standard
from loopscope.numerics.drift.next_token import beside
from loopscope.numerics.latents.alike import drawn_alike, log_positive, standardised
from loopscope.numerics.model.causal_model import OutputHead
from loopscope.numerics.steering.intervention import Ablation, Intervention, LatentReader
from loopscope.numerics.verdict.necessity import answer, loss_contrasts

WIDTH, PROMPTS = 8, 40


def planted(needed):
    """Losses of a toy world: latent 0 writes the direction that the concept's logit reads, or not.

    The stream carries all latents; the last axis carries the concept where latent 0 does not.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.eye(WIDTH)
    dictionary = Standard(rows.T.contiguous(), torch.zeros(WIDTH), rows, torch.zeros(WIDTH))
    weight = 0.05 * torch.randn(20, WIDTH, generator=generator)
    weight[:, :5] = 0.0  # no token needs what the latents write, but one
    weight[3, 0 if needed else WIDTH - 1] = 3.0
    stream = 1 + torch.rand(PROMPTS, 1, WIDTH, generator=generator)
    reader = LatentReader.of(dictionary, list(range(5)))
    found = []
    for latent in range(5):
        member = torch.zeros(1, 5)
        member[0, latent] = 1.0
        acts = Intervention(torch.zeros(1, WIDTH), Ablation(member, (reader,)))
        loss = []
        for prompt in range(PROMPTS):
            moved = acts.applied(stream[prompt : prompt + 1], torch.ones(1, 1, dtype=torch.bool))
            states = torch.cat([stream[prompt], moved[0]])
            _, mass = beside(OutputHead(weight), states, [3])
            loss.append(float(mass[0].log() - mass[1].log()))
        found.append(loss)
    losses = np.array(found)
    return {"anchor": losses[0]}, {("anchor", "alike"): losses[1:]}


def test_a_direction_that_the_concept_needs_is_used_and_another_is_not():
    own, controls = planted(needed=True)
    contrasts = loss_contrasts(own, controls, None)
    assert answer("anchor", contrasts) == "used"
    assert contrasts[0].contrast.low > 1.0
    own, controls = planted(needed=False)
    contrasts = loss_contrasts(own, controls, None)
    assert answer("anchor", contrasts) == "no loss shown"
    assert contrasts[0].contrast.estimate == pytest.approx(0.0, abs=1e-12)


def test_what_any_latent_would_lose_as_well_is_no_necessity():
    generator = np.random.default_rng(0)
    own = generator.normal(0.5, 0.1, PROMPTS)
    drawn = generator.normal(0.5, 0.1, (5, PROMPTS))
    contrasts = loss_contrasts({"anchor": own}, {("anchor", "alike"): drawn}, None)
    assert answer("anchor", contrasts) == "lost no more than matched"
    alone = loss_contrasts({"anchor": own}, {}, None)
    assert answer("anchor", alone) == "not compared"


def test_nothing_lost_is_said_to_be_used_no_oftener_than_its_level():
    generator, said = np.random.default_rng(1), 0
    for _ in range(300):
        own = generator.normal(0, 1, 20)
        drawn = generator.normal(0, 1, (3, 20))
        contrasts = loss_contrasts({"anchor": own}, {("anchor", "alike"): drawn}, None)
        said += answer("anchor", contrasts) == "used"
    assert said / 300 <= 0.05


def test_what_all_prompts_lose_alike_has_an_interval_of_no_width_and_says_nothing():
    (found,) = loss_contrasts({"anchor": np.zeros(20)}, {}, None)
    assert (found.contrast.low, found.contrast.high, found.p) == (0.0, 0.0, 1.0)
    assert answer("anchor", [found]) == "no loss shown"


def test_draws_that_differ_widen_the_interval():
    own, steady = np.full(20, 1.0) + np.linspace(-0.1, 0.1, 20), np.zeros((4, 20))
    spread = steady + np.array([-0.5, 0.5, -0.5, 0.5])[:, None]
    narrow = loss_contrasts({"a": own}, {("a", "alike"): steady}, None)[1]
    wide = loss_contrasts({"a": own}, {("a", "alike"): spread}, None)[1]
    assert wide.contrast.estimate == pytest.approx(narrow.contrast.estimate)
    error = np.std([-0.5, 0.5, -0.5, 0.5], ddof=1) / 2
    assert wide.between_draws == pytest.approx(error)
    assert wide.contrast.low < narrow.contrast.low - error


def test_matched_latents_are_near_eligible_and_none_twice_in_a_set():
    rate = np.linspace(0.001, 1, 100)
    near = standardised([log_positive(rate)], np.ones(100, dtype=bool))
    eligible = np.ones(100, dtype=bool)
    eligible[[50, 51]] = False
    sets = drawn_alike(near, eligible, [50, 51], 10, "seed", 0)
    assert len(sets) == 10 and sets == drawn_alike(near, eligible, [50, 51], 10, "seed", 0)
    for one in sets:
        assert len(set(one)) == 2 and not {50, 51} & set(one)
        assert all(abs(latent - 50) < 25 for latent in one)
    assert len({tuple(one) for one in sets}) > 3
    assert drawn_alike(near, np.zeros(100, dtype=bool), [50], 3, 0) == []


def test_a_rate_of_zero_stands_below_all_others():
    assert log_positive(np.array([0.0, 0.1, 0.4])) == pytest.approx(np.log([0.05, 0.1, 0.4]))
