"""Worlds with a right answer: a hierarchy of features, and gates with and without something behind.

Features, their firing and their directions come from ``sae_lens.synthetic``; it trains
dictionaries but makes none with a known hierarchy, so the two dictionaries are built here: a
coarse row is a parent's direction, a fine row that of a parent and one child together, as when a
child's latent absorbs its parent (Chanin et al. 2024, arXiv 2409.14507).
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch

from loopscope.numerics.calibration import (
    Calibration,
    Counts,
    Question,
    best,
    calibrate,
    select_candidates,
)
from loopscope.numerics.controls import Control, RowLaw, drawn_row_counts
from loopscope.numerics.features import latent_statistics
from loopscope.numerics.gate import ChildThresholds, GateRules, SelectionThresholds, count_children
from loopscope.numerics.mapping import ActivationColumns, cosine_blocks
from loopscope.numerics.splits import DiscoverRows
from tests.rows import discover_rows

CHILD = ChildThresholds(cosine_min=0.3, correlation_min=0.2, fine_selectivity_min=0.6)
SELECTION = SelectionThresholds(0.8, 0.3, 0.2, 0.05)
GATE = GateRules(subfeatures_min=3, null_anchors=500, percentile_min=95.0, stability_min=0.8)


@dataclass(frozen=True)
class Hierarchy:
    """Rows and decoders of both resolutions; ``is_child`` [coarse, fine] is the truth."""

    coarse: DiscoverRows
    fine: DiscoverRows
    coarse_decoder: torch.Tensor
    fine_decoder: torch.Tensor
    is_child: np.ndarray


def planted_hierarchy(
    seed: int, *, parents: int = 30, children: int = 4, decoys: int = 60, prompts: int = 150
) -> Hierarchy:
    """Return a world whose first parent is the concept, with decoys of both kinds.

    Half of the decoys lie near a parent and fire on their own (geometry without behaviour), half
    fire with a parent and lie elsewhere (behaviour without geometry). Decoders are off by a noise
    of a third of their length, and a tenth of the firings is missed.
    """
    from sae_lens.synthetic import (
        ActivationGenerator,
        FeatureDictionary,
        HierarchyNode,
        hierarchy_modifier,
    )

    width = 512
    features = parents * (1 + children)
    generator = np.random.default_rng(seed)
    roots = [
        HierarchyNode(p, [HierarchyNode(parents + p * children + c) for c in range(children)])
        for p in range(parents)
    ]
    probabilities = torch.cat(
        [torch.full((parents,), 0.25), torch.full((features - parents,), 0.5)]
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sampled = ActivationGenerator(
            features, probabilities, 0.2, modify_activations=hierarchy_modifier(roots)
        ).sample(12 * prompts)
        directions = FeatureDictionary(features, width, initializer=None, seed=seed)
    active = sampled.numpy() * (generator.random(sampled.shape) > 0.1)
    on, off = np.flatnonzero(sampled[:, 0] > 0), np.flatnonzero(sampled[:, 0] == 0)
    active = active[np.concatenate([on[:prompts], off[:prompts]])]
    vectors = directions.feature_vectors.detach().numpy()
    parent_of = np.repeat(np.arange(parents), children)
    rows = vectors[parent_of] + vectors[parents:]
    near = generator.integers(parents, size=decoys // 2)
    beside = generator.integers(parents, size=decoys - decoys // 2)
    noise = generator.normal(size=(decoys, width)) / np.sqrt(width)
    fine = np.concatenate([rows, vectors[near] + noise[: near.size], noise[near.size :]])
    alone = generator.random((len(active), near.size)) < 0.15
    with_parent = (active[:, beside] > 0) & (generator.random((len(active), beside.size)) < 0.8)
    fine_active = np.concatenate([active[:, parents:], alone, with_parent], axis=1)
    truth = np.zeros((parents, len(fine)), dtype=bool)
    truth[parent_of, np.arange(len(parent_of))] = True
    is_target = np.arange(len(active)) < min(prompts, on.size)
    return Hierarchy(
        discover_rows(active[:, :parents], is_target),
        discover_rows(fine_active, is_target),
        _off_by_a_third(vectors[:parents], generator),
        _off_by_a_third(fine, generator),
        truth,
    )


def _off_by_a_third(rows: np.ndarray, generator: np.random.Generator) -> torch.Tensor:
    noise = generator.normal(size=rows.shape)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True) * 3
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return torch.from_numpy((unit + noise).astype(np.float32))


def gate_of(
    seed: int,
    *,
    extra_children: int = 0,
    rate_matters: bool = False,
    resamples: int = 40,
    rogue: float = 0.0,
) -> Calibration:
    """Return the gate's answer in a world of 400 coarse latents, four of them the concept's.

    Every latent has Poisson(2) children at cosines about 0.6; with ``rate_matters`` those that
    fire more often have more, up to three times as many. The concept's latents have
    ``extra_children`` more: 0 is the null, in which they are latents like any other. With
    ``rogue`` all fine rows vary along one direction by so much of their length, and the concept's
    latents happen to lie near it: what then lies near them has nothing to do with the concept.
    """
    generator = np.random.default_rng([seed, extra_children, rate_matters])
    latents, width, side, concept = 400, 256, 80, 4
    is_target = np.arange(2 * side) < side
    rate = np.tile(generator.beta(1, 4, latents), (2 * side, 1))
    rate[:, :concept] = np.where(is_target[:, None], generator.uniform(0.5, 0.9, concept), 0.02)
    fires = generator.random(rate.shape) < rate
    rows = discover_rows(
        scipy.sparse.csr_array((fires * generator.exponential(1, rate.shape)).astype(np.float32)),
        is_target,
    )
    expected = 2 * (0.5 + 2.5 * rate.mean(axis=0)) if rate_matters else np.full(latents, 2.0)
    families = generator.poisson(expected)
    families[:concept] += extra_children
    decoder = _unit(generator.normal(size=(latents, width)))
    if rogue:
        decoder[:concept] = _unit(decoder[:concept] + np.eye(width)[0])
    parents = np.repeat(np.arange(latents), families)
    cosine = generator.normal(0.6, 0.08, parents.size)[:, None].clip(0.35, 0.95)
    away = _unit(generator.normal(size=(parents.size, width)))
    away = _unit(away - (away * decoder[parents]).sum(axis=1, keepdims=True) * decoder[parents])
    fine = cosine * decoder[parents] + np.sqrt(1 - cosine**2) * away
    fine[:, 0] += rogue * generator.normal(size=len(fine))
    return _asked(rows, decoder, fine, resamples)


def _asked(
    rows: DiscoverRows, decoder: np.ndarray, fine: np.ndarray, resamples: int
) -> Calibration:
    """Ask the gate as the mapping stage does, by the cosine rule (fine latents stay silent)."""
    coarse_rows = torch.from_numpy(decoder.astype(np.float32))
    silent = discover_rows(
        scipy.sparse.csr_array((rows.prompts, len(fine)), dtype=np.float32), rows.is_target
    )
    coarse_columns, fine_columns = ActivationColumns.of(rows), ActivationColumns.of(silent)
    children = np.zeros(len(decoder), dtype=np.int64)
    for block in cosine_blocks(coarse_rows, torch.from_numpy(fine.astype(np.float32))):
        found = count_children(block, coarse_columns, fine_columns, np.zeros(len(fine)), CHILD)
        children[block.coarse_start : block.coarse_start + len(found.cosine)] += found.cosine
    candidates = select_candidates(latent_statistics(rows), SELECTION, 5)
    return calibrate(
        rows,
        candidates,
        Counts(children, children),
        [control_of(coarse_rows[torch.from_numpy(candidates)], fine, best(children, candidates))],
        Question(SELECTION, 5, GATE, resamples, seed=0),
    )


def control_of(anchors: torch.Tensor, fine: np.ndarray, observed: int) -> Control:
    """Return the control that decides under the cosine rule."""
    law = RowLaw.of_decoder(torch.from_numpy(fine.astype(np.float32)))
    every = np.ones((len(anchors), len(fine)), dtype=bool)
    counts = drawn_row_counts(anchors, every, law, CHILD.cosine_min, ("decoder rows", 0))
    return Control("decoder rows", observed, counts, True, law.effective_dimensions)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
