"""Splitting graphs: planted hierarchies come back, small cases by hand, chance and halves."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse

from loopscope.numerics.latents.mapping import ActivationColumns, Indices
from loopscope.numerics.latents.splits import DiscoverRows, split_rows
from loopscope.numerics.splitting.edges import (
    EdgeRules,
    Edges,
    NearPairs,
    dealt_edge_counts,
    edge_stability,
    edges_of,
)
from loopscope.numerics.splitting.fates import CoarseLatent, coarse_fates, fine_fates
from tests.planted_hierarchy import Hierarchy, Level, near, planted

RULES = EdgeRules(cosine_min=0.3, correlation_min=0.2, twin_cosine_min=0.8)
SEEDS = range(8)


def _edges(coarse: Level, fine: Level, rules: EdgeRules = RULES) -> Edges:
    return edges_of(near(coarse, fine, rules.cosine_min), coarse.columns, fine.columns, rules)


def _f1(found: set[object], true: set[object]) -> Counter[str]:
    return Counter(hit=2 * len(found & true), all=len(found) + len(true))


def _scores(hierarchy: Hierarchy) -> dict[str, Counter[str]]:
    total = {name: Counter[str]() for name in ("edges", "births", "merges", "absorbed")}
    steps = zip(hierarchy.levels, hierarchy.levels[1:], hierarchy.steps, strict=False)
    for coarse, fine, step in steps:
        edges = _edges(coarse, fine)
        kept = edges.kept
        total["edges"] += _f1(
            set(zip(kept.coarse.tolist(), kept.fine.tolist(), strict=True)), set(step.edges)
        )
        ends = fine_fates(range(len(fine.rows)), edges)
        for name, fate, true in (("births", "born", step.born), ("merges", "merged", step.merged)):
            total[name] += _f1({one.latent for one in ends if one.fate == fate}, set(true))
        starts = coarse_fates(range(len(coarse.rows)), edges, coarse.columns, fine.columns, 0.5)
        total["absorbed"] += _f1(
            {one.latent for one in starts if one.fate == "absorbed"},
            {latent for latent, fate in step.fates.items() if fate == "absorbed"},
        )
    return total


def test_the_edges_births_and_merges_of_planted_hierarchies_come_back() -> None:
    total = {name: Counter[str]() for name in ("edges", "births", "merges", "absorbed")}
    for seed in SEEDS:
        for name, score in _scores(planted(seed)).items():
            total[name] += score
    f1 = {name: score["hit"] / score["all"] for name, score in total.items()}
    assert f1["edges"] >= 0.95, f1
    assert f1["births"] >= 0.9, f1
    assert f1["merges"] >= 0.9, f1
    assert f1["absorbed"] >= 0.85, f1


def test_cosines_alone_would_not_give_them_back() -> None:
    hierarchy = planted(0)
    coarse, fine = hierarchy.levels[1:]
    anything = replace(RULES, correlation_min=-1.0)
    pairs = _edges(coarse, fine, anything).pairs
    found = set(zip(pairs.coarse.tolist(), pairs.fine.tolist(), strict=True))
    score = _f1(set(found), set(hierarchy.steps[1].edges))
    assert score["hit"] / score["all"] < 0.9


def test_dealt_activations_make_few_edges_of_a_planted_hierarchy() -> None:
    coarse, fine = planted(1).levels[:2]
    pairs = near(coarse, fine, RULES.cosine_min)
    counts = dealt_edge_counts(pairs, coarse.columns, fine.columns, RULES, (0,), 50)
    assert counts.mean() < 0.1 * len(_edges(coarse, fine))
    again = dealt_edge_counts(pairs, coarse.columns, fine.columns, RULES, (0,), 50)
    assert (again == counts).all()


def test_where_all_latents_fire_alike_dealt_activations_make_as_many_edges() -> None:
    coarse, fine = planted(1).levels[:2]
    fires = coarse.activations[0]
    alike = [replace(level, activations=[fires] * len(level.rows)) for level in (coarse, fine)]
    pairs = near(*alike, RULES.cosine_min)
    counts = dealt_edge_counts(pairs, alike[0].columns, alike[1].columns, RULES, (0,), 5)
    assert (counts == len(pairs.fine)).all()


def test_an_edge_that_few_prompts_carry_is_not_stable() -> None:
    prompts = 40
    strong = np.zeros(prompts)
    strong[::2] = 1.0
    weak = np.zeros(prompts)
    weak[0] = 1.0
    coarse, fine = _rows(strong, weak), _rows(strong, weak)
    columns = ActivationColumns.of(coarse), ActivationColumns.of(fine)
    edges = edges_of(_pairs((0, 0, 0.9), (1, 1, 0.9)), *columns, RULES)
    stable, shaky = edge_stability(edges, coarse, fine, RULES, (0,), 40)
    assert stable == 1.0
    assert 0.2 < shaky < 0.8  # the one prompt is in half of the halves
    empty = edges_of(_pairs(), *columns, RULES)
    assert edge_stability(empty, coarse, fine, RULES, (0,), 4).size == 0


def test_a_latent_that_does_not_vary_has_no_edge() -> None:
    silent = np.zeros(16)
    coarse, fine = _columns(_firing(0, 6)), _columns(silent)
    edges = edges_of(_pairs((0, 0, 1.0)), coarse, fine, RULES)
    assert len(edges) == 0
    assert [one.fate for one in coarse_fates([0], edges, coarse, fine, 0.5)] == ["lost"]
    assert [one.fate for one in fine_fates([0], edges)] == ["born"]


def test_an_edge_through_a_latent_within_another_is_not_direct() -> None:
    wide, narrow, part = _firing(0, 8), _firing(0, 4), _firing(0, 3)
    coarse, fine = _columns(wide, narrow), _columns(part)
    edges = edges_of(_pairs((0, 0, 0.4), (1, 0, 0.7)), coarse, fine, RULES)
    assert edges.direct.tolist() == [False, True]
    assert fine_fates([0], edges)[0].parents == (1,)


def test_two_latents_apart_that_one_fine_latent_carries_on_have_merged() -> None:
    left, right = _firing(0, 4), _firing(4, 8)
    coarse, fine = _columns(left, right), _columns(left + right)
    edges = edges_of(_pairs((0, 0, 0.7), (1, 0, 0.69)), coarse, fine, RULES)
    assert [one.fate for one in fine_fates([0], edges)] == ["merged"]
    assert [one.fate for one in coarse_fates([0, 1], edges, coarse, fine, 0.5)] == ["merged"] * 2


@pytest.mark.parametrize(
    ("silent", "fate", "hole"), [(0, "kept", 0.0), (2, "kept", 0.4), (3, "absorbed", 0.6)]
)
def test_a_twin_that_is_silent_on_half_of_a_childs_prompts_was_absorbed(
    silent: int, fate: str, hole: float
) -> None:
    whole, child = _firing(0, 12), _firing(0, 5)
    coarse, fine = _columns(whole), _columns(_firing(silent, 12), child)
    edges = edges_of(_pairs((0, 0, 0.95), (0, 1, 0.6)), coarse, fine, RULES)
    (found,) = coarse_fates([0], edges, coarse, fine, 0.5)
    assert (found.fate, found.twin) == (fate, 0)
    assert found.hole == pytest.approx(hole)
    assert found.absorbed_by == ((1,) if fate == "absorbed" else ())


def test_too_few_prompts_say_nothing_of_absorption() -> None:
    coarse, fine = _columns(_firing(0, 12)), _columns(_firing(4, 12), _firing(0, 4))
    edges = edges_of(_pairs((0, 0, 0.95), (0, 1, 0.6)), coarse, fine, RULES)
    (found,) = coarse_fates([0], edges, coarse, fine, 0.5)
    assert found.fate == "kept"
    assert np.isnan(found.hole)


def test_parts_make_a_split_with_and_without_the_twin() -> None:
    whole, left, right = _firing(0, 8), _firing(0, 4), _firing(4, 8)
    coarse = _columns(whole)
    fine = _columns(left, right, whole)
    parts = ((0, 0, 0.6), (0, 1, 0.6))

    def of(*pairs: tuple[int, int, float]) -> CoarseLatent:
        (found,) = coarse_fates([0], edges_of(_pairs(*pairs), coarse, fine, RULES), coarse, fine, 1)
        return found

    alone, beside = of(*parts), of(*parts, (0, 2, 0.9))
    assert (alone.fate, alone.twin, alone.children) == ("split", None, (0, 1))
    assert (beside.fate, beside.twin) == ("split", 2)


def _firing(start: int, end: int) -> np.ndarray:
    found = np.zeros(16)
    found[start:end] = 1.0
    return found


def _rows(*activations: np.ndarray) -> DiscoverRows:
    values = scipy.sparse.csr_array(np.stack(activations, axis=1))
    condition = np.full(values.shape[0], "neutral")
    condition[1::2] = "target"
    return split_rows(values, condition, np.full(values.shape[0], "discover"))[0]


def _columns(*activations: np.ndarray) -> ActivationColumns:
    return ActivationColumns.of(_rows(*activations))


def _pairs(*pairs: tuple[int, int, float]) -> NearPairs:
    def indices(place: int) -> Indices:
        return np.array([pair[place] for pair in pairs], dtype=np.int64)

    return NearPairs(indices(0), indices(1), np.array([pair[2] for pair in pairs], dtype=float))
