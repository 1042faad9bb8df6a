"""From captured rows to activations and the table of features."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
import torch
from safetensors.numpy import load_file, save_file

from loopscope.specs.artifacts.capture import CALIBRATION
from loopscope.state.failures import JobStopped, TerminalFailure
from loopscope.worker.stages.decomposition import stage as decomposition
from loopscope.worker.stages.tables import read_sparse
from tests.unit.worker_bench import (
    COARSE,
    TEXT_TOKENS,
    Bench,
    bytes_of,
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    bench.capture()
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


def test_rows_that_are_not_the_last_tokens_are_not_called_so(bench):
    path = bench.folder / "capture" / "c" / "residual.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "position": tensors["position"] - 1}, path)
    assert bench.decompose("coarse")["population"] == "22 tokens, one of each prompt"


def test_each_decomposition_says_how_often_a_latent_fires_in_ordinary_text(bench):
    metrics = bench.decompose("coarse")
    text = load_file(bench.folder / "capture" / "c" / CALIBRATION.name)["residual"].astype(
        np.float64
    )
    expected = np.maximum(text @ COARSE.w_enc.double().numpy() - 0.5, 0)
    table = pandas.read_parquet(bench.folder / "decomposition" / "coarse" / "features.parquet")
    assert table["text_rate"].dtype == np.float64
    np.testing.assert_allclose(table["text_rate"], (expected > 0).mean(axis=0))
    assert 0 < table["text_rate"][1] < 1 and metrics["text_tokens"] == TEXT_TOKENS
    assert metrics["text_l0"] == pytest.approx((expected > 0).sum(axis=1).mean())
    error = ((text - expected @ COARSE.w_dec.double().numpy()) ** 2).sum()
    assert metrics["text_fvu"] == pytest.approx(error / ((text - text.mean(axis=0)) ** 2).sum())


def test_a_decomposition_keeps_its_prompts_with_the_split_that_it_was_told(bench):
    bench.split = ["test", *bench.split[1:]]
    assert bench.decompose("coarse")["test_prompts"] == 1
    captured, kept = (
        pandas.read_parquet(bench.folder / stage / "prompts.parquet")
        for stage in ("capture/c", "decomposition/coarse")
    )
    assert "split" not in captured and kept["split"].tolist() == bench.split
    pandas.testing.assert_frame_equal(kept[captured.columns], captured)


@pytest.mark.parametrize("rows_at_once", [5, 8192])
def test_active_latents_within_rounding_of_the_edge_are_counted(bench, monkeypatch, rows_at_once):
    monkeypatch.setattr(decomposition, "ROWS_PER_SHARD_MAX", rows_at_once)
    monkeypatch.setattr(decomposition, "ROWS_PER_SHARD_MIN", rows_at_once)
    path = bench.folder / "capture" / "c" / "residual.safetensors"
    tensors = load_file(path)
    # latent 1 reads axis 1 less 0.5: three prompts stand one unit in the last place above it
    tensors["residual"][[1, 5, 21], 1] = np.nextafter(np.float32(0.5), np.float32(1))
    save_file(tensors, path)
    metrics = bench.decompose("coarse")
    stored, _ = read_sparse(bench.folder / "decomposition" / "coarse" / "activations.safetensors")
    assert metrics["near_edge"] == 3
    assert metrics["active"] == stored.nnz > 20


def test_no_active_latent_lies_near_the_edge_by_a_clear_margin(bench):
    assert bench.decompose("coarse")["near_edge"] == 0


def test_the_feature_table_has_one_row_per_latent(bench):
    bench.decompose("coarse")
    table = pandas.read_parquet(bench.folder / "decomposition" / "coarse" / "features.parquet")
    assert " ".join(table.columns) == (
        "latent aggregation mean_activation_target mean_activation_neutral max_activation_target "
        "max_activation_neutral firing_rate_target firing_rate_neutral selectivity cohens_d auroc "
        "p_value q_value n_firing text_rate"
    )
    assert table["latent"].tolist() == [0, 1, 2, 3]
    assert set(table["aggregation"]) == {"last"}
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
