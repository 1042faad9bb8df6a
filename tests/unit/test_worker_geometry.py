"""The geometry of two dictionaries: resumed after any shard, shared, and enough for any rule."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
import torch
from safetensors.numpy import load_file, save_file

from loopscope.numerics.architectures.standard import Standard
from loopscope.numerics.gate.matching import crowding
from loopscope.numerics.gate.row_law import RowLaw
from loopscope.specs.artifacts.geometry import DECODERS, NEIGHBOURS
from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.state.failures import JobStopped, TerminalFailure
from loopscope.worker.block_sizes import SIZES
from loopscope.worker.context import StageContext
from loopscope.worker.shards import Shards
from loopscope.worker.stages.geometry import stage as geometry
from loopscope.worker.stages.mapping import stage as mapping
from tests.unit.worker_bench import Bench, bytes_of, mapping_payload, relu_dictionary

PAIR = {"coarse": {"identity": "coarse"}, "fine": {"identity": "fine"}}
COARSE, FINE = 10, 50


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(geometry, "COARSE_PER_SHARD_MIN", 3)
    monkeypatch.setattr(geometry, "COARSE_PER_SHARD_MAX", 3)
    monkeypatch.setattr(geometry, "FINE_PER_BLOCK", 16)


def narrow(decoder: torch.Tensor) -> Standard:
    latents, width = decoder.shape
    return Standard(
        decoder.T.contiguous(), torch.zeros(latents), decoder.contiguous(), torch.zeros(width)
    )


def dictionaries(width: int = 6):
    made = torch.Generator().manual_seed(0)
    rows = [torch.randn((n, 6), generator=made) for n in (COARSE, FINE)]
    return {
        "coarse": relu_dictionary(rows[0]),
        "fine": relu_dictionary(rows[1]) if width == 6 else narrow(rows[1][:, :width]),
    }


def context(folder, *, stop_after: int | None = None, width: int = 6) -> StageContext:
    both, reports = dictionaries(width), []

    def report(*what):
        reports.append(what)
        if stop_after is not None and len(reports) > stop_after:
            raise JobStopped

    return StageContext(
        device="cpu",
        model=lambda ref: pytest.fail("no model is needed"),
        dictionary=lambda ref: both[ref["identity"]],
        artifact=lambda stage, digest: pytest.fail("nothing else is read"),
        shards=Shards(ShardFolder(folder / "shards")),
        progress=report,
    )


def run(folder, out: str = "out", **changes):
    path = folder / out
    path.mkdir(parents=True, exist_ok=True)
    return geometry.run(PAIR, context(folder, **changes), path), path


def test_it_holds_what_mapping_would_compute_of_the_decoders(tmp_path):
    metrics, out = run(tmp_path)
    both = dictionaries()
    found = load_file(out / DECODERS.name)
    for side in ("coarse", "fine"):
        norms = torch.linalg.vector_norm(both[side].w_dec, dim=1)
        np.testing.assert_allclose(found[f"{side}_norm"], norms, rtol=1e-6)
    np.testing.assert_allclose(found["crowding"], crowding(both["coarse"].w_dec), rtol=1e-6)
    law = RowLaw.of_decoder(both["fine"].w_dec)
    np.testing.assert_allclose(found["law_variances"], law.variances, rtol=1e-9)
    np.testing.assert_allclose(np.abs(found["law_axes"]), np.abs(law.axes), atol=1e-6)
    assert metrics["pairs"] == len(load_file(out / NEIGHBOURS.name)["fine"])
    assert (metrics["bounded"], metrics["complete_from"]) == (0, pytest.approx(0.2))


def test_a_job_that_is_stopped_after_any_report_goes_on_and_ends_in_the_same_bytes(tmp_path):
    _, whole = run(tmp_path / "whole")
    for stop_after in range(0, 40, 3):
        folder = tmp_path / str(stop_after)
        try:
            run(folder, "stopped", stop_after=stop_after)
        except JobStopped:
            _, out = run(folder)
            assert bytes_of(out) == bytes_of(whole)
    assert stop_after > 30


def test_a_job_goes_on_with_the_block_sizes_with_which_it_was_begun(tmp_path, monkeypatch):
    _, whole = run(tmp_path / "whole")
    with pytest.raises(JobStopped):
        run(tmp_path, "stopped", stop_after=4)
    monkeypatch.setattr(geometry, "COARSE_PER_SHARD_MAX", 9)
    monkeypatch.setattr(geometry, "COARSE_PER_SHARD_MIN", 9)
    monkeypatch.setattr(geometry, "FINE_PER_BLOCK", 7)
    _, out = run(tmp_path)
    assert bytes_of(out) == bytes_of(whole)
    names = {path.name for path in (tmp_path / "shards").iterdir()}
    assert {SIZES, "neighbours-000000003.safetensors"} <= names


def test_decoders_of_two_widths_are_refused(tmp_path):
    with pytest.raises(TerminalFailure, match="DictionaryMismatch"):
        run(tmp_path, width=5)


@pytest.fixture
def mapped(tmp_path):
    bench = Bench(tmp_path)
    bench.capture()
    for which in ("coarse", "fine"):
        bench.decompose(which)
    bench.compare_decoders()
    return bench


@pytest.mark.parametrize(("cut", "counted_anew"), [(0.3, False), (0.2, False), (0.1, True)])
def test_below_the_floor_children_are_counted_anew(mapped, cut, counted_anew):
    payload = mapping_payload([0]) | {"minCosine": cut, "partialCosine": 0.05}
    mapped.reports.clear()
    mapping.run(payload, mapped.context("m"), mapped.out("mapping", "m"))
    assert ("ComparingDecoders" in {phase for phase, *_ in mapped.reports}) == counted_anew


def test_counted_anew_or_from_the_lists_children_are_the_same(mapped):
    tables = []
    for name, floor in (("lists", 0.2), ("anew", 2.0)):
        path = mapped.folder / "geometry" / "g" / NEIGHBOURS.name
        tensors = {**load_file(path), "floor": np.full(4, floor, dtype=np.float32)}
        save_file(tensors, path)
        out = mapped.out("mapping", name)
        mapping.run(mapping_payload([0]), mapped.context(name), out)
        tables.append(pandas.read_parquet(out / "coarse_summary.parquet"))
    pandas.testing.assert_frame_equal(*tables)
    assert tables[0]["children_cosine_rule"].tolist() == [3, 1, 1, 0]
