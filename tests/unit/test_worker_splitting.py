"""The stage *splitting* on planted dictionaries: fates of the candidates, chance, equal bytes."""

import json

import numpy as np
import pytest
import scipy.sparse
import torch

from loopscope.numerics.architectures.standard import Standard
from loopscope.specs.artifacts.decomposition import ACTIVATIONS
from loopscope.specs.splitting import SplittingRules
from loopscope.worker.stages.geometry import stage as geometry
from loopscope.worker.stages.splitting import stage as splitting
from loopscope.worker.stages.tables import write_sparse
from tests.planted_hierarchy import PROMPTS, planted
from tests.stage_world import World, _write, contents, table

SEED = 3


@pytest.fixture(scope="module")
def hierarchy():
    return planted(SEED, levels=2)


@pytest.fixture(scope="module")
def world(hierarchy, tmp_path_factory):
    """Both levels as decompositions with their dictionaries, and the geometry of these."""
    world = World(None, tmp_path_factory.mktemp("world"))
    for name, level in zip(("c", "f"), hierarchy.levels, strict=True):
        folder = world.folder / f"decomposition-{name}"
        folder.mkdir()
        activations = np.stack(level.activations, axis=1)
        write_sparse(folder / ACTIVATIONS.name, scipy.sparse.csr_array(activations))
        condition = ["target", "neutral"] * (PROMPTS // 2)
        prompts = {"condition": condition, "split": ["discover"] * PROMPTS}
        _write(folder / "prompts.parquet", prompts)
        rates = (activations[::2] > 0).mean(axis=0)
        _write(folder / "features.parquet", {"firing_rate_target": rates})
        rows = torch.from_numpy(np.stack(level.rows)).float()
        biases = torch.zeros(len(rows)), torch.zeros(rows.shape[1])
        world.dictionaries[name] = Standard(rows.T.contiguous(), biases[0], rows, biases[1])
    pair = {"coarse": {"identity": "c"}, "fine": {"identity": "f"}}
    world.run(geometry, pair, "geometry", "geometry")
    return world


def payload_of(coarse, fine, **changes):
    sides = {
        side: {"digest": name, "dictionary": {"identity": name}, "candidates": candidates}
        for side, name, candidates in (("coarse", "c", coarse), ("fine", "f", fine))
    }
    rules = SplittingRules(draws=20, resamples=20).canonical() | changes
    edges = {"minCosine": 0.3, "minCorrelation": 0.2}
    return {**sides, "geometry": {"digest": "g"}, **rules, **edges}


def test_each_candidate_gets_its_planted_fate_and_children(world, hierarchy):
    (step,) = hierarchy.steps
    candidates = [*range(0, 40, 2)]
    folder, metrics = world.run(splitting, payload_of(candidates, []), "some", "some")
    latents = table(folder / "splitting_latents.parquet")
    fates = {
        latent: fate
        for side, latent, fate in zip(
            latents["side"], latents["latent"], latents["fate"], strict=True
        )
        if side == "coarse"
    }
    assert sorted(fates) == candidates
    right = sum(fates[latent] == step.fates[latent] for latent in candidates)
    assert right >= 0.9 * len(candidates)
    edges = table(folder / "splitting_edges.parquet")
    found = {
        (coarse, fine)
        for coarse, fine, direct in zip(
            edges["coarse"], edges["fine"], edges["direct"], strict=True
        )
        if direct and coarse in candidates
    }
    true = {edge for edge in step.edges if edge[0] in candidates}
    assert 2 * len(found & true) >= 0.95 * (len(found) + len(true))
    assert metrics["by_chance"] < 0.2 * metrics["edges"]
    assert metrics["p"] == pytest.approx(1 / 21)


def test_a_fine_candidate_is_born_only_where_no_coarse_latent_matches(world, hierarchy):
    (step,) = hierarchy.steps
    born = sorted(step.born)[0]
    coarse, child = sorted(step.edges)[0]
    folder, metrics = world.run(splitting, payload_of([], [born, child]), "fine", "fine")
    latents = table(folder / "splitting_latents.parquet")
    fates = dict(zip(latents["latent"], latents["fate"], strict=True))
    assert fates[born] == "born" and fates[child] in ("twin", "part", "merged")
    assert coarse in table(folder / "splitting_edges.parquet")["coarse"]
    assert metrics["coarse"] == dict.fromkeys(metrics["coarse"], 0)


def test_without_candidates_there_is_an_empty_graph(world):
    folder, metrics = world.run(splitting, payload_of([], []), "none", "none")
    assert table(folder / "splitting_latents.parquet")["latent"] == []
    assert (metrics["edges"], metrics["stability"], metrics["p"]) == (0, None, 1.0)
    assert json.loads((folder / "splitting.json").read_text())["pairs"] == 0


def test_the_same_payload_gives_the_same_bytes(world):
    first, _ = world.run(splitting, payload_of([1, 2], [0]), "once", "once")
    second, _ = world.run(splitting, payload_of([1, 2], [0]), "again", "again")
    assert contents(first) == contents(second)
