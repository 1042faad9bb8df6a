"""Test prompts choose nothing: they change no table but the one that confirms."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pytest
import scipy.stats
from safetensors.numpy import load_file, save_file

from loopscope.numerics.statistics.multiple_tests import holm
from loopscope.worker.stages.tables import read_sparse
from tests.unit.worker_bench import NEUTRALS, TARGETS, Bench, bytes_of

SPLIT = ["discover", "test"] * ((TARGETS + NEUTRALS) // 2)


def run(folder, *, disturbed: bool = False, hard: int = 0) -> Bench:
    """Return a finished mapping; ``disturbed`` replaces the vectors of the test prompts."""
    bench = Bench(folder)
    bench.capture(split=SPLIT, hard=hard)
    if disturbed:
        path = bench.folder / "capture" / "c" / "residual.safetensors"
        tensors = load_file(path)
        held = np.array(SPLIT) == "test"
        tensors["residual"][held] = np.random.default_rng(5).uniform(0, 4, (held.sum(), 6))
        save_file(tensors, path)
    bench.decompose("coarse")
    bench.decompose("fine")
    bench.map([0, 2])
    return bench


def test_other_test_prompts_change_only_what_confirms(tmp_path):
    plain, disturbed = run(tmp_path / "a"), run(tmp_path / "b", disturbed=True)
    for side in ("coarse", "fine"):
        first, second = (b.folder / "decomposition" / side for b in (plain, disturbed))
        assert bytes_of(first)["features.parquet"] == bytes_of(second)["features.parquet"]
    first, second = (bytes_of(b.folder / "mapping" / "m") for b in (plain, disturbed))
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"features_test.parquet", "gate.json"}
    gates = [json.loads(found["gate.json"]) for found in (first, second)]
    for gate in gates:
        del gate["confirmed"], gate["confirmation"]
        for anchor in gate["anchors"]:
            del anchor["confirmed"]
    assert gates[0] == gates[1]


def test_candidates_are_confirmed_by_the_same_rule_with_one_sided_tests_and_holm(tmp_path):
    bench = run(tmp_path)
    out = bench.folder / "mapping" / "m"
    table = pandas.read_parquet(out / "features_test.parquet")
    assert table["side"].tolist() == ["coarse"] * 2 + ["fine"] * 4
    assert table["latent"].tolist() == [0, 2, 0, 1, 3, 4]
    assert table["confirmed"].tolist() == [True, False] + [None] * 4
    dense, _ = read_sparse(bench.folder / "decomposition/coarse/activations.safetensors")
    held = dense.toarray().astype(np.float64)[1::2]
    target = np.arange(1, TARGETS + NEUTRALS, 2) < TARGETS
    expected = [
        scipy.stats.mannwhitneyu(
            held[target, latent], held[~target, latent], method="asymptotic", alternative="greater"
        ).pvalue
        for latent in (0, 2)
    ]
    np.testing.assert_allclose(table["p_value"][:2], expected, rtol=1e-9)
    np.testing.assert_allclose(table["p_holm"][:2], holm(np.array(expected)), rtol=1e-9)
    gate = json.loads((out / "gate.json").read_text())
    assert [anchor["confirmed"] for anchor in gate["anchors"]] == [True, False]
    assert gate["confirmation"] == (
        "1 of 2 candidates pass the selection again on 6 target and 5 neutral test prompts"
    )


def test_without_a_test_split_nothing_is_confirmed_and_the_gate_says_so(tmp_path):
    bench = Bench(tmp_path)
    bench.capture()
    bench.decompose("coarse")
    bench.decompose("fine")
    metrics, out = bench.map([0])
    assert not (out / "features_test.parquet").exists()
    assert (metrics["confirmed"], metrics["confirmation"]) == (None, "not confirmed: no test split")
    assert json.loads((out / "gate.json").read_text())["anchors"][0]["confirmed"] is None


@pytest.mark.parametrize("side", ["coarse", "fine"])
def test_hard_negatives_are_reported_apart_and_change_no_other_number(tmp_path, side):
    bench = run(tmp_path, hard=4)
    table = pandas.read_parquet(bench.folder / f"decomposition/{side}/features.parquet")
    dense, _ = read_sparse(bench.folder / f"decomposition/{side}/activations.safetensors")
    places = np.arange(TARGETS + NEUTRALS)
    chosen = np.array(SPLIT) == "discover"
    hard = dense.toarray()[chosen & (places >= TARGETS + NEUTRALS - 4)]
    neutral = dense.toarray()[chosen & (places >= TARGETS) & (places < TARGETS + NEUTRALS - 4)]
    np.testing.assert_allclose(table["mean_activation_hard_negative"], hard.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(table["firing_rate_hard_negative"], (hard > 0).mean(axis=0))
    np.testing.assert_allclose(table["mean_activation_neutral"], neutral.mean(axis=0), rtol=1e-5)
    assert "mean_activation_hard_negative" in pandas.read_parquet(
        bench.folder / "mapping/m/features_test.parquet"
    )


def test_a_candidate_that_fires_on_hard_negatives_carries_a_caution_and_nothing_else_changes(
    tmp_path,
):
    """Latent 2 answers to neutrals and hard negatives alike, latent 0 to targets alone."""
    bench = run(tmp_path, hard=4)
    gate = json.loads((bench.folder / "mapping/m/gate.json").read_text())
    cautions = [anchor["caution"] for anchor in gate["anchors"]]
    assert cautions[0] is None
    assert cautions[1].startswith("fires on 100% of the hard negatives, selectivity against them -")
    assert gate["cautioned"] == 1
    kept = run(tmp_path / "kept")
    pairs = (b.folder / "mapping/m/pairs.parquet" for b in (bench, kept))
    first, second = (pandas.read_parquet(path)[["coarse", "fine", "child"]] for path in pairs)
    pandas.testing.assert_frame_equal(first, second)


def test_without_hard_negatives_there_is_no_caution(tmp_path):
    gate = json.loads((run(tmp_path).folder / "mapping/m/gate.json").read_text())
    assert [anchor["caution"] for anchor in gate["anchors"]] == [None, None]
    assert gate["cautioned"] == 0
