"""Templates, sources and mirrors: what belongs together is drawn, permuted and scored together."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
import scipy.sparse
import torch
from safetensors.torch import load_file

from loopscope.numerics.latents.mapping import ActivationColumns
from loopscope.numerics.latents.permutation import edge_test
from loopscope.numerics.latents.splits import exchangeable, split_rows
from loopscope.worker.stages.steering import stage as steering
from loopscope.worker.stages.steering.arms import build_arms
from tests.stage_world import steering_payload, table
from tests.unit.worker_bench import NEUTRALS, TARGETS, Bench

MIRRORS = 30


def rows_of(activations, condition, group=None):
    values = scipy.sparse.csr_array(np.asarray(activations, dtype=np.float32))
    split = np.full(len(condition), "discover")
    return split_rows(values, np.asarray(condition), split, group)[0]


def test_a_half_takes_mirrors_together_and_as_many_of_both():
    """An activation is its prompt's place, so that the draws can be read."""
    condition = ["target"] * MIRRORS + ["neutral"] * MIRRORS
    places = np.arange(2 * MIRRORS)
    rows = rows_of(places[:, None], condition, places % MIRRORS)
    drawn = rows.halved(np.random.default_rng(0))
    seen = drawn.activations.toarray()[:, 0].astype(int)
    assert drawn.is_target.sum() == (~drawn.is_target).sum() == -(-MIRRORS // 2)
    assert sorted(seen[drawn.is_target]) == sorted(seen[~drawn.is_target] - MIRRORS)
    assert len(set(seen)) == len(seen), "none counts twice"


def test_of_prompts_that_stand_alone_half_of_each_condition_is_taken():
    rows = rows_of(np.arange(10)[:, None], ["target"] * 4 + ["neutral"] * 6)
    drawn = rows.halved(np.random.default_rng(0))
    assert drawn.is_target.tolist() == [True] * 2 + [False] * 3


def test_only_groups_of_the_same_make_up_stand_for_one_another():
    stratum, group = np.array([0, 0, 1, 1, 0, 1]), np.array([7, 8, 7, 8, 9, 9])
    assert [units.tolist() for units in exchangeable(stratum, group)] == [[[0, 2], [1, 3], [4, 5]]]
    group = np.array([7, 7, 7, 8, 9, 9])
    assert [units.tolist() for units in exchangeable(stratum, group)] == [
        [[0, 1, 2]], [[4, 5]], [[3]],
    ]  # fmt: skip
    assert [units.tolist() for units in exchangeable(stratum, None)] == [
        [[0], [1], [4]], [[2], [3], [5]],
    ]  # fmt: skip


def test_latents_that_each_answer_to_their_own_templates_are_no_edge():
    """Within a template the prompts agree: their number is no evidence for a pair."""
    templates, each = 16, 12
    condition = ["target"] * (templates * each // 2) + ["neutral"] * (templates * each // 2)
    group = np.repeat(np.arange(templates), each)

    def false_edges(told):
        found = []
        for world in range(40):
            generator = np.random.default_rng(world)
            effects = np.exp(generator.normal(size=(templates, 2)))
            values = effects[group] * np.exp(0.1 * generator.normal(size=(len(group), 2)))
            columns = ActivationColumns.within_condition(rows_of(values, condition, told))
            found.append(edge_test(columns, columns, 0, 199, world).alone[1] <= 0.05)
        return sum(found)

    assert false_edges(group) <= 6, "binomial 40 x 0.05: more than 6 has p < 0.004"
    assert false_edges(None) > 10, "without groups the same worlds are full of edges"


def test_a_decomposition_keeps_the_groups_that_it_was_told_and_its_rows_know_them(tmp_path):
    bench = Bench(tmp_path)
    bench.capture()
    bench.groups = [place % TARGETS for place in range(TARGETS + NEUTRALS)]
    bench.decompose("coarse")
    kept = pandas.read_parquet(tmp_path / "decomposition" / "coarse" / "prompts.parquet")
    assert kept["group"].tolist() == bench.groups


@pytest.mark.parametrize("groups", [None, [0, 0, 2]])
def test_a_verdict_is_told_which_openings_belong_together(steering_world, groups):
    payload = steering_payload()
    for opening, number in zip(payload["openings"], groups or [], strict=False):
        opening["group"] = number
    folder, _ = steering_world.run(steering, payload)
    verdict = json.loads((folder / "verdict.json").read_text())
    assert {one["groups"] for one in verdict["contrasts"]} == {len(set(groups or range(3)))}


def test_the_difference_of_means_is_over_the_discover_prompts_of_the_decomposition(steering_world):
    """The capture knows of no split; its test prompts must choose no direction all the same."""
    path = steering_world.folder / "decomposition-dc" / "prompts.parquet"
    prompts = table(path)
    prompts["split"] = ["test", "discover"] * 4
    pyarrow.parquet.write_table(pyarrow.table(prompts), path)
    payload = steering_payload(arms=["none", "coarse", "meanDifference"])
    arms = build_arms(payload, steering_world.context("a"), steering_world.model.d_model)
    rows = load_file(steering_world.folder / "capture" / "residual.safetensors")[
        "residual"
    ].double()
    difference = rows[[1, 3]].mean(dim=0) - rows[[5, 7]].mean(dim=0)
    expected = (difference / difference.norm()).float()
    torch.testing.assert_close(arms.vectors["meanDifference"], expected)
