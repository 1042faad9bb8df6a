"""From captured rows to tables, gate and directions, on a dictionary pair with known answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from safetensors.numpy import load_file, save_file

from numerics.dictionary import SparseDictionary
from specs.rules import Selection
from state.failures import JobStopped, TerminalFailure
from worker.context import StageContext
from worker.shards import Shards
from worker.stages import decomposition, mapping
from worker.stages.tables import read_sparse, write_table

D_IN = 6


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def relu_dictionary(decoder: torch.Tensor) -> SparseDictionary:
    """Latent i fires as far as the row's part along decoder row i exceeds 0.5."""
    return SparseDictionary(
        w_enc=decoder.T.contiguous(),
        b_enc=torch.full((len(decoder),), -0.5),
        w_dec=decoder.contiguous(),
        b_dec=torch.zeros(D_IN),
        architecture="standard",
    )


AXES = torch.eye(D_IN)
COARSE = relu_dictionary(torch.stack([2 * AXES[0], AXES[1], AXES[2], AXES[5]]))
FINE = relu_dictionary(
    torch.stack(
        [
            AXES[0],  # the twin of coarse 0
            AXES[0] + AXES[1],  # child, but fires on neutral as well
            AXES[0] - 100 * AXES[5],  # nearly orthogonal
            AXES[0] * 0.5 - AXES[4],  # cosine 0.45, never fires
            AXES[2],
            torch.zeros(D_IN),
        ]
    )
)
TARGETS, NEUTRALS = 12, 10


@dataclass
class Bench:
    """A folder with a capture, and everything a stage needs, all of it real."""

    folder: Path
    reports: list[tuple[str, int, int, str]] = field(default_factory=list)
    stop_after: int | None = None

    def context(self, action: str) -> StageContext:
        return StageContext(
            device="cpu",
            model=lambda ref: pytest.fail("no model is needed"),
            dictionary=lambda ref: {"coarse": COARSE, "fine": FINE}[ref["identity"]],
            artifact=lambda stage, digest: self.folder / stage / digest,
            shards=Shards(self.folder / "shards" / action),
            progress=self._report,
        )

    def _report(self, phase: str, done: int, total: int, unit: str) -> None:
        self.reports.append((phase, done, total, unit))
        if self.stop_after is not None and len(self.reports) > self.stop_after:
            raise JobStopped

    def out(self, stage: str, digest: str) -> Path:
        path = self.folder / stage / digest
        path.mkdir(parents=True, exist_ok=True)
        return path

    def capture(self, tokens: int = 1) -> None:
        """Axis 0 is large on targets, axis 1 on half of all, axis 2 on neutrals."""
        generator = np.random.default_rng(0)
        prompts = TARGETS + NEUTRALS
        is_target = np.arange(prompts) < TARGETS
        rows = generator.uniform(0, 0.2, (prompts, D_IN)).astype(np.float32)
        rows[:, 0] += is_target * generator.uniform(1, 3, prompts)
        rows[:, 1] += (np.arange(prompts) % 2) * generator.uniform(1, 3, prompts)
        rows[:, 2] += ~is_target * generator.uniform(1, 3, prompts)
        rows[:, 4] = 3
        rows[:, 5] = 0
        rows = np.repeat(rows, tokens, axis=0)
        rows *= np.tile(np.linspace(1, 0.5, tokens, dtype=np.float32), prompts)[:, None]
        out = self.out("capture", "c")
        tensors = {
            "residual": rows,
            "prompt_index": np.repeat(np.arange(prompts, dtype=np.int32), tokens),
            "position": np.tile(np.arange(tokens, dtype=np.int32), prompts),
        }
        save_file(tensors, out / "residual.safetensors")
        columns = {
            "prompt_id": [f"p{i}" for i in range(prompts)],
            "text": ["text"] * prompts,
            "condition": np.where(is_target, "target", "neutral"),
            "split": ["discover"] * prompts,
            "n_tokens": np.full(prompts, tokens),
        }
        write_table(out / "prompts.parquet", columns)

    def decompose(self, which: str, aggregation: str = "last") -> dict[str, object]:
        payload = {"capture": {"digest": "c"}, "dictionary": {"identity": which}}
        payload["aggregation"] = aggregation
        return decomposition.run(payload, self.context(which), self.out("decomposition", which))

    def map(self, candidates: list[int], digest: str = "m", **changes: object):
        payload = mapping_payload(candidates)
        payload["gate"] = {**payload["gate"], **changes}
        out = self.out("mapping", digest)
        return mapping.run(payload, self.context(digest), out), out


COARSE_REF = {"dictionary": {"identity": "coarse"}}


def mapping_payload(candidates: list[int]) -> dict:
    return {
        "capture": {"digest": "c"},
        "coarse": {"digest": "coarse", **COARSE_REF, "candidates": candidates},
        "fine": {"digest": "fine", "dictionary": {"identity": "fine"}, "candidates": []},
        "selection": Selection().canonical(),
        "minCosine": 0.3,
        "partialCosine": 0.1,
        "minCorrelation": 0.2,
        "topK": 2,
        "gate": {"rule": "cosine", "minSubfeatures": 3, "minFineSelectivity": 0.6},
    }


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    bench.capture()
    return bench


@pytest.fixture
def mapped(bench):
    bench.decompose("coarse")
    bench.decompose("fine")
    return bench


def test_a_decomposition_holds_the_activations_of_each_prompt(bench):
    metrics = bench.decompose("coarse")
    out = bench.folder / "decomposition" / "coarse"
    residual = load_file(bench.folder / "capture" / "c" / "residual.safetensors")["residual"]
    expected = np.maximum(residual @ COARSE.w_enc.numpy() - 0.5, 0)
    stored = load_file(out / "activations.safetensors")
    assert {name: str(array.dtype) for name, array in stored.items()} == {
        "indptr": "int64",
        "indices": "int32",
        "values": "float32",
        "shape": "int64",
    }
    activations, _ = read_sparse(out / "activations.safetensors")
    np.testing.assert_allclose(activations.toarray(), expected, atol=1e-5)

    rebuilt = expected @ COARSE.w_dec.numpy()
    spread = ((residual - residual.mean(axis=0)) ** 2).sum()
    assert metrics["fvu"] == pytest.approx(((residual - rebuilt) ** 2).sum() / spread, rel=1e-4)
    assert metrics["l0"] == pytest.approx((expected > 0).sum(axis=1).mean())
    assert (metrics["alive"], metrics["dead"], metrics["d_sae"]) == (3, 1, 4)
    assert (metrics["rows"], metrics["population"]) == (22, "22 last tokens")


def test_the_feature_table_has_one_row_per_latent(bench):
    bench.decompose("coarse")
    table = pandas.read_parquet(bench.folder / "decomposition" / "coarse" / "features.parquet")
    assert " ".join(table.columns) == (
        "latent mean_activation_target mean_activation_neutral firing_rate_target "
        "firing_rate_neutral selectivity auroc p_value q_value n_firing"
    )
    assert table["latent"].tolist() == [0, 1, 2, 3]
    assert table["selectivity"][0] == pytest.approx(1)
    assert table["selectivity"][2] == pytest.approx(-1)
    assert table["q_value"][0] < 0.001
    assert np.isnan(table["q_value"][3])


@pytest.mark.parametrize("aggregation", ["last", "max", "mean"])
def test_all_tokens_are_reduced_as_the_aggregation_says(tmp_path, aggregation):
    bench = Bench(tmp_path)
    bench.capture(tokens=3)
    metrics = bench.decompose("coarse", aggregation)
    assert metrics["population"] == "66 tokens"
    out = bench.folder / "decomposition" / "coarse"
    activations, _ = read_sparse(out / "activations.safetensors")
    first = load_file(bench.folder / "capture/c/residual.safetensors")["residual"][0, 0]
    tokens = [max(2 * first * scale - 0.5, 0) for scale in (1, 0.75, 0.5)]
    expected = {"last": tokens[2], "max": tokens[0], "mean": sum(tokens) / 3}[aggregation]
    assert activations[0, 0] == pytest.approx(expected, rel=1e-5)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_resumed_decomposition_has_the_same_bytes_and_repeats_no_sealed_shard(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(decomposition, "ROWS_PER_SHARD_MAX", 5)
    monkeypatch.setattr(decomposition, "ROWS_PER_SHARD_MIN", 5)
    whole = Bench(tmp_path / "whole")
    whole.capture()
    whole.decompose("fine")
    interrupted = Bench(tmp_path / "interrupted", stop_after=3)
    interrupted.capture()
    with pytest.raises(JobStopped):
        interrupted.decompose("fine")
    sealed = sorted((interrupted.folder / "shards" / "fine").glob("*.safetensors"))
    assert len(sealed) == 3
    before = [path.stat().st_mtime_ns for path in sealed]
    interrupted.stop_after = None
    interrupted.decompose("fine")
    assert [path.stat().st_mtime_ns for path in sealed] == before
    assert bytes_of(interrupted.folder / "decomposition" / "fine") == bytes_of(
        whole.folder / "decomposition" / "fine"
    )
    assert ("Encoding", 22, 22, "rows") in interrupted.reports


def test_a_dictionary_of_another_width_is_refused(bench):
    path = bench.folder / "capture" / "c" / "residual.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "residual": tensors["residual"][:, :3].copy()}, path)
    with pytest.raises(TerminalFailure, match="DictionaryMismatch"):
        bench.decompose("coarse")


@pytest.mark.parametrize("number", [np.nan, np.inf, 3e38])
def test_a_capture_of_no_numbers_or_of_numbers_that_overflow_is_refused(bench, number):
    path = bench.folder / "capture" / "c" / "residual.safetensors"
    tensors = load_file(path)
    tensors["residual"][3, 0] = number
    save_file(tensors, path)
    with pytest.raises(TerminalFailure, match="NotFinite"):
        bench.decompose("coarse")


def test_shards_are_small_for_wide_dictionaries_and_never_tiny():
    assert decomposition.rows_per_shard(640, 1024) == 8192
    assert decomposition.rows_per_shard(2304, 262_144) == 165
    assert decomposition.rows_per_shard(8192, 2**20) == 32


def test_the_gate_opens_for_an_anchor_with_enough_children(mapped):
    metrics, out = mapped.map([0])
    gate = json.loads((out / "gate.json").read_text())
    assert gate["verdict"] == metrics["verdict"] == "GO"
    (anchor,) = gate["anchors"]
    assert anchor["children"] == [0, 1, 3]
    np.testing.assert_allclose(anchor["cosines"], [1, 0.5**0.5, 0.2**0.5], rtol=1e-6)
    assert (gate["passing_all"], gate["n_all"]) == (1, 4)
    assert (gate["passing_firing"], gate["n_firing"]) == (1, 3)
    assert (gate["share_of_all"], gate["share_of_firing"]) == (1 / 4, 1 / 3)
    assert (gate["other_rule"]["rule"], gate["other_rule"]["passing_all"]) == ("strict", 0)
    assert "1 of 1 anchors" in gate["reason"]
    assert (metrics["children"], metrics["anchor"]) == (3, 0)
    assert metrics["arms"] == ["coarse", "fine", "multi"]


def test_the_strict_rule_wants_correlation_and_selectivity_too(mapped):
    _, out = mapped.map([0], rule="strict")
    gate = json.loads((out / "gate.json").read_text())
    assert gate["verdict"] == "NO-GO"
    assert gate["anchors"][0]["children"] == [0]
    assert gate["other_rule"]["passing_all"] == 1
    metrics, _ = mapped.map([0], digest="one", rule="strict", minSubfeatures=1)
    assert (metrics["verdict"], metrics["share_of_all"]) == ("GO", 1 / 4)


def test_the_summary_covers_every_coarse_latent_and_strict_needs_a_selective_anchor(mapped):
    _, out = mapped.map([0], minSubfeatures=1, minFineSelectivity=-1.0)
    table = pandas.read_parquet(out / "coarse_summary.parquet")
    assert table["coarse"].tolist() == [0, 1, 2, 3]
    assert table["fires"].tolist() == [True, True, True, False]
    assert table["children_cosine_rule"].tolist() == [3, 1, 1, 0]
    assert table["passes_cosine_rule"].tolist() == [True, True, True, False]
    assert table["children_strict_rule"][2] == 1
    assert table["passes_strict_rule"].tolist() == [True, False, False, False]


def test_pairs_hold_both_top_k_and_every_child_with_their_readings(mapped):
    metrics, out = mapped.map([0])
    table = pandas.read_parquet(out / "pairs.parquet").set_index("fine")
    assert table["coarse"].unique().tolist() == [0]
    # by cosine 0 and 1, by correlation 0 and 2, and 3 as the third child
    assert table.index.tolist() == [0, 1, 3, 2]
    assert table["reading"][0] == "match"
    assert table["reading"][2] == "co-occurring"
    assert table["reading"][3] == "unobserved"
    assert np.isnan(table["correlation"][3])
    assert np.isnan(table["coverage_coarse_given_fine"][3])
    assert table["coverage_coarse_given_fine"][0] == 1
    assert table["child"].tolist() == [True, True, True, False]
    assert sum(metrics["readings"].values()) == len(table)
    assert metrics["readings"]["unobserved"] == 1


def test_correlations_are_those_of_numpy_over_all_and_over_target_prompts(mapped):
    _, out = mapped.map([0])
    table = pandas.read_parquet(out / "pairs.parquet").set_index("fine")
    dense = {
        side: read_sparse(mapped.folder / "decomposition" / side / "activations.safetensors")[0]
        .toarray()
        .astype(float)
        for side in ("coarse", "fine")
    }
    spans = {"correlation": slice(None), "correlation_within_target": slice(0, TARGETS)}
    for fine in (0, 1):
        for column, rows in spans.items():
            expected = np.corrcoef(dense["coarse"][rows, 0], dense["fine"][rows, fine])[0, 1]
            assert table[column][fine] == pytest.approx(expected, abs=1e-9)


def test_the_empty_corner_counts_observed_pairs_over_all_fine_latents(mapped):
    payload = mapping_payload([0]) | {"minCorrelation": 0.999, "topK": 1}
    out = mapped.out("mapping", "corner")
    mapping.run(payload, mapped.context("corner"), out)
    # the twin matches, fine 1 does not correlate enough, fine 3 is unobserved
    assert json.loads((out / "gate.json").read_text())["empty_corner_count"] == 1


def test_the_histogram_counts_all_fine_latents_of_each_anchor(mapped):
    _, out = mapped.map([0, 2])
    table = pandas.read_parquet(out / "cosine_histogram.parquet")
    assert len(table) == 200
    assert table.groupby("coarse")["count"].sum().to_dict() == {0: 6, 2: 6}
    ones = table[(table["coarse"] == 0) & (table["bin_high"] == 1.0)]
    assert ones["count"].tolist() == [1]


def test_the_directions_are_unit_and_say_what_they_are(mapped):
    _, out = mapped.map([2, 0])
    vectors = load_file(out / "directions.safetensors")
    described = json.loads((out / "directions.json").read_text())
    assert described["anchor"] == 0
    assert described["children"] == [0, 1, 3]
    assert described["missing"] == {}
    np.testing.assert_allclose(vectors["coarse"], np.eye(D_IN)[0])
    rows = FINE.w_dec[[0, 1, 3]].double().numpy()
    total = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).sum(axis=0)
    fine = total / np.linalg.norm(total)
    np.testing.assert_allclose(vectors["fine"], fine, atol=1e-6)
    multi = fine + np.eye(D_IN)[0]
    np.testing.assert_allclose(vectors["multi"], multi / np.linalg.norm(multi), atol=1e-6)
    assert all(vector.dtype == np.float32 for vector in vectors.values())
    assert set(described["arms"]) == {"coarse", "fine", "multi"}


def test_an_anchor_without_children_leaves_the_coarse_arm_and_says_why(mapped):
    metrics, out = mapped.map([3])
    described = json.loads((out / "directions.json").read_text())
    assert metrics["verdict"] == "NO-GO"
    assert list(load_file(out / "directions.safetensors")) == ["coarse"]
    assert "no fine latent is a child of coarse latent 3" in described["missing"]["fine"]
    assert described["missing"]["multi"] == "there is no fine direction"


def test_without_candidates_the_tables_are_empty_and_the_gate_says_why(mapped):
    metrics, out = mapped.map([])
    gate = json.loads((out / "gate.json").read_text())
    assert (gate["verdict"], gate["anchors"]) == ("NO-GO", [])
    assert gate["reason"] == "no candidates passed the selection"
    assert (metrics["anchor"], metrics["arms"], metrics["children"]) == (None, [], 0)
    pairs = pandas.read_parquet(out / "pairs.parquet")
    assert len(pairs) == 0
    assert pairs.columns.tolist()[:3] == ["coarse", "fine", "cosine"]
    assert not (out / "directions.safetensors").exists()
    missing = json.loads((out / "directions.json").read_text())["missing"]
    assert set(missing) == {"coarse", "fine", "multi"}


def test_a_second_run_writes_the_same_bytes(mapped):
    _, first = mapped.map([0, 2], digest="first")
    _, second = mapped.map([0, 2], digest="second")
    assert bytes_of(first) == bytes_of(second)


def test_a_stop_between_blocks_ends_the_mapping(mapped):
    mapped.reports.clear()
    mapped.stop_after = 0
    with pytest.raises(JobStopped):
        mapped.map([0])
