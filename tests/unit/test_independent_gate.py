"""The gate of generated tables, recomputed by code that shares nothing with it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from loopscope.numerics.gate.calibration import Counts, Question, calibrate, select_candidates
from loopscope.numerics.gate.controls import drawn_row_counts
from loopscope.numerics.gate.matching import Comparison, Covariates, matched_null
from loopscope.numerics.gate.row_law import RowLaw
from loopscope.numerics.latents.features import latent_statistics
from tests.acceptance.independent_draws import control_counts, outcomes_of_halves
from tests.acceptance.independent_gate import Anchored, check_gate, within
from tests.acceptance.independent_verdict import Agreement
from tests.planted import GATE, SELECTION, TOP, control_of
from tests.rows import discover_rows
from tests.unit.test_worker_gate_anchor import AXES, TwoCandidates

DECODER = AXES[:120].numpy()


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def mapped(folder, children, candidates):
    """The files of a mapping with the coarse features beside them, as in a bundle."""
    bench = TwoCandidates(folder, children)
    bench.mapped(candidates)
    out = bench.out("mapping", "m")
    features = folder / "decomposition" / "coarse" / "features.parquet"
    shutil.copy(features, out / "features_coarse.parquet")
    return out


@pytest.mark.parametrize(
    ("children", "candidates", "word"),
    [
        ({0: 3, 1: 3}, [0, 1], "GO"),
        ({1: 3}, [0, 1], "INCONCLUSIVE"),
        ({1: 2}, [0, 1], "NO-GO"),
        (dict.fromkeys(range(1, 40), 3), [0, 1], "INCONCLUSIVE"),
        ({1: 3}, [], "INCONCLUSIVE"),
    ],
)
def test_the_gate_is_computed_again(tmp_path, children, candidates, word):
    out = mapped(tmp_path, children, candidates)
    agreement = Agreement()
    check_gate(out, DECODER, agreement)
    assert json.loads((out / "gate.json").read_text())["verdict"] == word
    assert agreement.rows["gate: word"] == (1, 0.0)
    assert len(candidates) in (0, agreement.rows.get("gate: ranks of candidates", (0,))[0])


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (("mean_rank",), "mean rank"),
        (("percentile",), "percentiles"),
        (("control", "p"), "p of controls"),
        (("stability", "share"), "share of halves"),
        (("null", "rate_difference"), "distance of anchors"),
    ],
)
def test_a_number_that_was_changed_is_noticed(tmp_path, change, kind):
    out = mapped(tmp_path, {0: 3, 1: 3}, [0, 1])
    gate = json.loads((out / "gate.json").read_text())
    *place, name = change
    inner = gate[place[0]] if place else gate
    inner[name] *= 0.97
    (out / "gate.json").write_text(json.dumps(gate))
    with pytest.raises(AssertionError, match=kind):
        check_gate(out, DECODER, Agreement())


class FewTokens:
    """A world in which rare latents have more children, with rates measured on 4,800 tokens."""

    def __init__(self, seed: int, extra: int) -> None:
        generator = np.random.default_rng(seed)
        latents, side = 600, 60
        rate = (0.003 * np.exp(1.3 * generator.normal(size=latents))).clip(0, 0.9)
        rate[:4] /= 3
        children = generator.poisson(2 * (rate / 0.003) ** -0.3)
        children[:4] += extra
        self.children = children
        self.rate = generator.binomial(4800, rate) / 4800
        directions = generator.normal(size=(latents, 48))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        self.decoder = directions * np.exp(0.1 * generator.normal(size=(latents, 1)))
        self.is_target = np.arange(2 * side) < side
        fires = generator.random((2 * side, latents)) < rate
        concept = np.where(self.is_target[:, None], 0.45, 0.02)
        fires[:, :4] = generator.random((2 * side, 4)) < concept
        self.activations = (fires * generator.exponential(1, fires.shape)).astype(np.float32)
        self.rows = discover_rows(self.activations, self.is_target)
        self.candidates = select_candidates(latent_statistics(self.rows), SELECTION, TOP)
        decoder = torch.from_numpy(self.decoder.astype(np.float32))
        self.comparison = Comparison.of(children, Covariates.of(decoder, self.rate, self.rows))
        living = (self.activations > 0).any(axis=0) | (self.rate > 0)
        self.anchored = Anchored(children, self.rate, self.decoder, living)


@pytest.mark.parametrize("seed", range(4))
def test_ranks_by_rate_norm_and_density_are_computed_again(seed):
    world = FewTokens(seed, extra=1)
    chosen = world.candidates
    null = matched_null(world.comparison, chosen, 500, seed=0)
    allowed = world.anchored.allowed(chosen.tolist())
    assert allowed.max() > 0.01
    assert world.comparison.allowance(chosen) == pytest.approx(allowed, abs=1e-6)
    assert np.expm1(world.anchored.fitted) == pytest.approx(world.comparison.expected, abs=1e-4)
    for latent, told in zip(chosen.tolist(), null.ranks, strict=True):
        low, high = world.anchored.rank(latent, chosen.tolist(), null.draws)
        assert low - 1e-9 <= told <= high + 1e-9
        assert high - low < 2
    again = world.anchored.percentile(chosen.tolist(), null.draws, seed=3)
    p = 1 - again / 100
    assert abs(p - (1 - null.percentile / 100)) <= within(p, null.draws, 4000)


@pytest.mark.parametrize("extra", [0, 2, 6])
def test_halves_of_the_prompts_say_as_often_the_same(extra):
    world = FewTokens(1, extra)
    limits = {"minSubfeatures": 3, "nullAnchors": 500, "minPercentile": 95}
    rules = {
        "minSelectivity": 0.8, "minFiringRateTarget": 0.3, "maxFiringRateNeutral": 0.2,
        "maxQ": 0.05, "top": TOP,
    }  # fmt: skip
    again = outcomes_of_halves(
        world.activations, world.is_target, None, world.anchored, rules, limits, 60
    )
    found = calibrate(
        world.rows,
        world.candidates,
        Counts(world.children, world.comparison),
        [control_of(torch.eye(1, 40), torch.eye(2, 40), 1)],
        Question(SELECTION, TOP, GATE, 100, seed=0),
    )
    told = [half.outcome for half in found.resamples]
    least = {name: again[name] / 60 for name in ("fails", "passes", "stands out")}
    least["fails"] += again["none"] / 60
    for outcome, share in least.items():
        near = 0 if outcome == "fails" else again["near"] / 60
        error = within(share, 100, 60)
        assert share - error <= told.count(outcome) / 100 <= share + near + error, outcome


def test_dictionaries_that_are_really_built_reach_the_counts_of_the_control():
    generator = np.random.default_rng(0)
    spread = np.geomspace(1, 0.1, 200)
    fine = generator.normal(0.02, 1, size=(2000, 200)) * spread
    anchors = generator.normal(size=(3, 200)) * spread
    law = RowLaw.of_decoder(torch.from_numpy(fine))
    every = np.ones((3, 2000), dtype=bool)
    told = drawn_row_counts(torch.from_numpy(anchors), every, law, 0.3, ("decoder rows", 0))
    built = control_counts(anchors, fine, 0.3, 60, seed=1)
    error = np.sqrt(told.var() / len(told) + built.var() / len(built))
    assert told.mean() > 1
    assert abs(told.mean() - built.mean()) <= 4 * error
