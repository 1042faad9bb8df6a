"""Planted worlds: the mapping finds the hierarchy, the gate seldom opens without a reason.

Forty worlds bound a rate of false GO at 5 % only loosely (five or fewer of forty has probability
0.986 at exactly 5 %); ``benchmarks/planted_worlds.py`` asks many more.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from loopscope.numerics.gate.rule import readings
from loopscope.numerics.latents.mapping import ActivationColumns, correlations, cosine_blocks
from loopscope.numerics.latents.permutation import edge_test
from loopscope.numerics.statistics.multiple_tests import benjamini_hochberg
from tests.planted import CHILD, WIDE, gate_world, planted_hierarchy

WORLDS = 40


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def f1(found: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_matches_are_the_planted_edges_though_either_measure_alone_is_deceived(seed):
    world = planted_hierarchy(seed)
    every = [np.arange(rows.activations.shape[1]) for rows in (world.coarse, world.fine)]
    columns = [ActivationColumns.of(rows) for rows in (world.coarse, world.fine)]
    r = correlations(*columns, *every)
    cosine = next(cosine_blocks(world.coarse_decoder, world.fine_decoder)).cosines.numpy()
    reading = readings(cosine, r, CHILD.cosine_min, 0.1, CHILD.correlation_min)
    assert f1(reading == "match", world.is_child) >= 0.95
    assert f1(cosine >= CHILD.cosine_min, world.is_child) < 0.95
    assert f1(r >= CHILD.correlation_min, world.is_child) < 0.95
    assert (reading == "geometric-only").sum() > 20
    assert (reading == "co-occurring").sum() > 10


def test_edges_that_geometry_proposed_have_a_small_q_exactly_where_they_were_planted():
    world = planted_hierarchy(3)
    columns = [ActivationColumns.within_condition(rows) for rows in (world.coarse, world.fine)]
    cosine = next(cosine_blocks(world.coarse_decoder, world.fine_decoder)).cosines.numpy()
    proposed = cosine >= CHILD.cosine_min
    p = np.stack([edge_test(*columns, latent, 500, seed=0).alone for latent in range(len(cosine))])
    found = np.zeros_like(proposed)
    found[proposed] = benjamini_hochberg(p[proposed]) <= 0.05
    assert f1(found, world.is_child) >= 0.95


@pytest.mark.parametrize("exponent", [-0.3, 0.0, 0.3])
def test_the_gate_seldom_opens_for_latents_like_any_other(exponent):
    worlds = [gate_world(seed, exponent=exponent) for seed in range(WORLDS)]
    assert sum(world.says_go() for world in worlds) <= 5
    # the count alone would have opened most of these gates
    assert sum(world.count_passes for world in worlds) > WORLDS / 2


def test_matched_on_prompts_rare_latents_with_more_children_would_look_like_a_concept():
    worlds = [gate_world(seed, exponent=-0.3) for seed in range(WORLDS)]
    assert sum(world.passes_matched_on_prompts for world in worlds) > 10


def test_the_gate_seldom_opens_for_nothing_in_a_wide_pair():
    worlds = [gate_world(seed, exponent=-0.3, shape=WIDE) for seed in range(10)]
    assert sum(world.says_go() for world in worlds) <= 3


@pytest.mark.parametrize("exponent", [-0.3, 0.3])
def test_the_gate_opens_for_three_more_children(exponent):
    worlds = [gate_world(seed, exponent=exponent, extra_children=3) for seed in range(3)]
    assert sum(world.says_go() for world in worlds) >= 2


def test_without_rates_over_text_the_gate_does_not_match_on_the_prompts_in_silence():
    world = gate_world(0, extra_children=6)
    unknown = replace(world.covariates, text_rate=np.full(len(world.children), np.nan))
    found = replace(world, covariates=unknown).asked(20)
    assert (found.verdict, found.outcome) == ("INCONCLUSIVE", "passes")
    assert any("no rates over calibration text" in doubt for doubt in found.doubts)


def test_candidates_along_directions_that_all_fine_rows_share_do_not_open_the_gate():
    """Matched anchors lie elsewhere and have few children: only the control sees it."""
    found = [gate_world(seed, rogue=0.8).asked(20) for seed in range(4)]
    assert all(answer.evidence.percentile > 95 for answer in found)
    assert [answer.outcome for answer in found] == ["stands out"] * 4
    assert [answer.verdict for answer in found] == ["INCONCLUSIVE"] * 4
    for answer in found:
        (doubt,) = answer.doubts
        assert doubt.startswith("a dictionary that knows nothing of the concept reaches as many")


def test_a_low_cut_off_opens_no_gate_that_rows_like_the_decoders_open_as_well(monkeypatch):
    monkeypatch.setattr("tests.planted.CHILD", CHILD.__class__(0.0, 0.2, 0.6))
    found = gate_world(0).asked(20)
    assert found.outcome != "fails"
    assert found.verdict == "INCONCLUSIVE"
    assert any("knows nothing of the concept" in doubt for doubt in found.doubts)
