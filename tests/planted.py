"""Worlds with a right answer: a hierarchy of features, and gates with and without something behind.

Features, their firing and their directions come from ``sae_lens.synthetic``; it trains
dictionaries but makes none with a known hierarchy, so the two dictionaries are built here: a
coarse row is a parent's direction, a fine row that of a parent and one child together, as when a
child's latent absorbs its parent (Chanin et al. 2024, arXiv 2409.14507).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch

from loopscope.numerics.gate.calibration import (
    Calibration,
    Counts,
    Question,
    best,
    calibrate,
    select_candidates,
)
from loopscope.numerics.gate.controls import CONTROL_DRAWS, Control, drawn_row_counts
from loopscope.numerics.gate.counting import count_children
from loopscope.numerics.gate.matching import Comparison, Covariates, matched_null
from loopscope.numerics.gate.row_law import RowLaw
from loopscope.numerics.gate.rule import (
    ChildThresholds,
    GateRules,
    SelectionThresholds,
)
from loopscope.numerics.latents.features import latent_statistics
from loopscope.numerics.latents.mapping import ActivationColumns, cosine_blocks
from loopscope.numerics.latents.splits import DiscoverRows
from loopscope.specs.rules import Gate, Selection
from tests.rows import discover_rows

CHILD = ChildThresholds(cosine_min=0.3, correlation_min=0.2, fine_selectivity_min=0.6)
SELECTION = SelectionThresholds(0.8, 0.3, 0.2, 0.05)
TOP = Selection().top
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


@dataclass(frozen=True)
class Shape:
    """Sizes of a world of the gate; ``prompts`` a side, ``text_rate`` the median over latents."""

    latents: int
    prompts: int
    text_rate: float
    width: int | None
    """Numbers of a decoder row; without decoders the counts and covariates are drawn instead."""


SMALL = Shape(latents=400, prompts=80, text_rate=0.02, width=256)
WIDE = Shape(latents=16_384, prompts=100, text_rate=0.002, width=None)
"""As 16k x 262k: about 80 latents fire at a time. Decoders of that size are not made."""
CONCEPT = 4
TEXT_TOKENS = 4800
"""About as many as the packaged calibration text has."""
CHILDREN = 2.0


@dataclass(frozen=True)
class GateWorld:
    """Prompts, counts, covariates and the control of one world, drawn when it is asked for."""

    rows: DiscoverRows
    candidates: np.ndarray
    children: np.ndarray
    covariates: Covariates
    draw_control: Callable[[], Control]

    def asked(self, resamples: int = Gate().resamples) -> Calibration:
        """Return the gate's answer, by the rules of the mapping stage."""
        return self._asked(resamples, [self.draw_control()])

    def _asked(self, resamples: int, controls: list[Control]) -> Calibration:
        return calibrate(
            self.rows,
            self.candidates,
            Counts(self.children, Comparison.of(self.children, self.covariates)),
            controls,
            Question(SELECTION, TOP, GATE, resamples, seed=0),
        )

    def says_go(self) -> bool:
        """Whether the gate says GO; control and resamples are drawn only where it could."""
        return self._asked(1, []).outcome == "stands out" and self.asked().verdict == "GO"

    @property
    def count_passes(self) -> bool:
        """Whether some candidate has its children."""
        return bool((self.children[self.candidates] >= GATE.subfeatures_min).any())

    @property
    def passes_matched_on_prompts(self) -> bool:
        """Whether the largest count would also stand out by the rule that was in force once.

        The anchors are matched on the firing rate over the prompts, half of which are about the
        concept, and on nothing else.
        """
        latents = len(self.children)
        rate = np.bincount(self.rows.activations.indices, minlength=latents) / self.rows.prompts
        on_prompts = Covariates(rate, np.ones(latents), np.zeros(latents), rate > 0)
        comparison = Comparison.of(self.children, on_prompts)
        null = matched_null(comparison, self.candidates, GATE.null_anchors, seed=0)
        largest = int(self.children[self.candidates].max())
        return self.count_passes and null.percentile_of_best(largest) >= GATE.percentile_min


def gate_world(
    seed: int,
    *,
    exponent: float = 0.0,
    extra_children: int = 0,
    rarer: float = 3.0,
    rogue: float = 0.0,
    shape: Shape = SMALL,
) -> GateWorld:
    """Return a world with four latents of a concept.

    Rates in text are log-normal (sd 1.3), the concept's ``rarer`` times lower, and are measured
    on 4,800 tokens. Over prompts others fire about as often as in text; the concept's fire on 50
    to 90 % of the target prompts and 2 % of the neutral ones. A latent has Poisson(2 (rate /
    median)^``exponent``) children, the concept's have ``extra_children`` more: 0 is the null, in
    which they are latents like any other of their frequency. With ``rogue`` all fine rows vary by
    so much of their length along a few directions, and each of the concept's latents happens to
    lie near one of these: what then lies near them has nothing to do with the concept.
    """
    generator = np.random.default_rng([seed, extra_children, round(100 * exponent) + 100])
    latents = shape.latents
    text = shape.text_rate * np.exp(1.3 * generator.normal(size=latents))
    text[:CONCEPT] /= rarer
    text = text.clip(0, 0.9)
    families = generator.poisson(CHILDREN * (text / shape.text_rate) ** exponent)
    families[:CONCEPT] += extra_children
    measured = generator.binomial(TEXT_TOKENS, text) / TEXT_TOKENS
    rows = _prompts_of(text, shape.prompts, generator)
    norm = np.exp(0.1 * generator.normal(size=latents))
    candidates = select_candidates(latent_statistics(rows), SELECTION, TOP)
    if shape.width is None:
        living = np.bincount(rows.activations.indices, minlength=latents) > 0
        density = generator.normal(0.2, 0.02, latents)
        covariates = Covariates(measured, norm, density, living | (measured > 0))
        control = Control("decoder rows", 1, np.zeros(CONTROL_DRAWS, dtype=np.int64), True)
        return GateWorld(rows, candidates, families, covariates, lambda: control)
    decoder = _unit(generator.normal(size=(latents, shape.width)))
    if rogue:
        decoder[:CONCEPT] = _unit(decoder[:CONCEPT] + np.eye(shape.width)[:CONCEPT])
    fine = _fine_rows(decoder, families, generator)
    shared = rogue * generator.normal(size=(len(fine), CONCEPT))
    fine[:, :CONCEPT] += torch.from_numpy(shared.astype(np.float32))
    coarse = torch.from_numpy((norm[:, None] * decoder).astype(np.float32))
    children = _children(coarse, fine, rows)
    observed = best(children, candidates)
    return GateWorld(
        rows,
        candidates,
        children,
        Covariates.of(coarse, measured, rows),
        lambda: control_of(coarse[torch.from_numpy(candidates)], fine, observed),
    )


def control_of(anchors: torch.Tensor, fine: torch.Tensor, observed: int) -> Control:
    """Return the control that decides under the cosine rule."""
    law = RowLaw.of_decoder(fine)
    every = np.ones((len(anchors), len(fine)), dtype=bool)
    counts = drawn_row_counts(anchors, every, law, CHILD.cosine_min, ("decoder rows", 0))
    return Control("decoder rows", observed, counts, True, law.effective_dimensions)


def _prompts_of(text: np.ndarray, side: int, generator: np.random.Generator) -> DiscoverRows:
    is_target = np.arange(2 * side) < side
    often = text * np.exp(0.5 * generator.normal(size=text.size))
    fires = generator.random((2 * side, text.size)) < often
    concept = np.where(is_target[:, None], generator.uniform(0.5, 0.9, CONCEPT), 0.02)
    fires[:, :CONCEPT] = generator.random(concept.shape) < concept
    sparse = scipy.sparse.csr_array(fires.astype(np.float32))
    sparse.data *= generator.exponential(1, sparse.nnz).astype(np.float32)
    return discover_rows(sparse, is_target)


def _fine_rows(
    decoder: np.ndarray, families: np.ndarray, generator: np.random.Generator
) -> torch.Tensor:
    """Return children at cosines about 0.6 to their parents, and nowhere near other latents."""
    parents = np.repeat(np.arange(len(decoder)), families)
    cosine = generator.normal(0.6, 0.08, parents.size)[:, None].clip(0.35, 0.95)
    away = _unit(generator.normal(size=(parents.size, decoder.shape[1])))
    away = _unit(away - (away * decoder[parents]).sum(axis=1, keepdims=True) * decoder[parents])
    fine = cosine * decoder[parents] + np.sqrt(1 - cosine**2) * away
    return torch.from_numpy(fine.astype(np.float32))


def _children(coarse: torch.Tensor, fine: torch.Tensor, rows: DiscoverRows) -> np.ndarray:
    """Count as the mapping stage does, by the cosine rule (fine latents stay silent)."""
    silent = discover_rows(
        scipy.sparse.csr_array((rows.prompts, len(fine)), dtype=np.float32), rows.is_target
    )
    coarse_columns, fine_columns = ActivationColumns.of(rows), ActivationColumns.of(silent)
    children = np.zeros(len(coarse), dtype=np.int64)
    for block in cosine_blocks(coarse, fine):
        found = count_children(block, coarse_columns, fine_columns, np.zeros(len(fine)), CHILD)
        children[block.coarse_start : block.coarse_start + len(found.cosine)] += found.cosine
    return children


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
