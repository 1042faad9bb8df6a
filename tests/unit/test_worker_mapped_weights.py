"""Wide dictionaries lie in the pages of a file: of their own, or of one that is made once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from loopscope.inputs.headers import HeaderError
from loopscope.numerics.dictionaries.sparse import encode
from loopscope.state.failures import JobStopped, TerminalFailure
from loopscope.worker import converted_dictionaries, dictionaries
from loopscope.worker.dictionaries import load_dictionary
from loopscope.worker.mapped_weights import FilePages, MappedFile, mapped_npz, write_float32
from tests.unit.test_worker_dictionaries import D_SAE, gemma_scope_arrays, normal, npz_ref


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of its own, and dictionaries of any size are taken for wide ones."""
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dictionaries, "CONVERTED_BYTES_MIN", 1)
    return tmp_path / "cache" / "loopscope" / "dictionaries"


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "params.npz"
    np.savez(path, **gemma_scope_arrays())
    return path


def test_a_mapped_file_holds_what_was_saved_before_and_after_it_is_given_back(tmp_path):
    saved = {"a": torch.randn(3, 5), "b": torch.randn(7).half(), "none": torch.zeros(0, 4)}
    save_file(saved, tmp_path / "x.safetensors")
    file = MappedFile.open(tmp_path / "x.safetensors")
    for _ in range(2):
        assert all(torch.equal(file.tensors[name], tensor) for name, tensor in saved.items())
        file.release()
    assert file.holds(file.tensors["a"]) and file.holds(file.tensors["a"][1:, 2:])
    assert not file.holds(saved["a"])


@pytest.mark.parametrize("too_many", range(8))
def test_tensors_that_stand_anywhere_in_a_file_are_read_as_they_are(tmp_path, too_many):
    saved = {"a": torch.randn(3).half(), "b": torch.randn(2, 5), "c": torch.randn(4).double()}
    end, entries, content = 0, {}, b""
    for name, dtype in (("a", "F16"), ("b", "F32"), ("c", "F64")):
        begin, end = end, end + saved[name].nbytes
        shape = list(saved[name].shape)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        content += saved[name].numpy().tobytes()
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8 + too_many)
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + content)
    file = MappedFile.open(tmp_path / "x")
    for _ in range(2):
        assert all(torch.equal(file.tensors[name], tensor) for name, tensor in saved.items())
        file.release()
    assert file.holds(file.tensors["a"]) == (too_many % 2 == 0)


def test_what_is_no_safetensors_file_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"no header at all, but long enough for one")
    with pytest.raises(HeaderError):
        MappedFile.open(tmp_path / "x")


def test_weights_are_written_as_float32_whatever_their_layout(tmp_path):
    given = {"a": torch.randn(4, 6).T, "b": torch.randn(5).double(), "c": torch.randn(2).bfloat16()}
    write_float32(tmp_path / "x", given, lambda done: None)
    found = MappedFile.open(tmp_path / "x").tensors
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in given.items())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_unpacked_into_a_nameless_file(tmp_path, save):
    arrays = {
        "a": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32),
        "turned": np.asfortranarray(np.random.default_rng(1).normal(size=(5, 2))),
        "none": np.zeros((0, 3), dtype=np.float16),
    }
    save(tmp_path / "x.npz", **arrays)
    file = mapped_npz(tmp_path / "x.npz", tmp_path)
    file.release()
    found = file.tensors
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_a_wide_npz_is_converted_once_with_progress_and_reads_the_same(cache, npz):
    reports = []
    plain = {**npz_ref(npz), "identity": "pair"}
    first = load_dictionary(plain, lambda *report: reports.append(report))
    assert {phase for phase, *_ in reports} == {"CheckingDictionary", "ConvertingDictionary"}
    assert all(0 <= done <= total for _, done, total, _ in reports)
    reports.clear()
    npz.unlink()  # nothing but the copy is read any more
    second = load_dictionary(plain, lambda *report: reports.append(report))
    assert {phase for phase, *_ in reports} == {"CheckingDictionary"}
    rows = normal(9, first.d_in, seed=3)
    arrays = gemma_scope_arrays()
    assert np.array_equal(first.w_dec.numpy(), arrays["W_dec"])
    assert first.architecture == second.architecture == "jumprelu"
    assert not second.apply_b_dec_to_input
    one, other = (encode(found, rows, 4, 5).toarray() for found in (first, second))
    assert np.array_equal(one, other)
    second.release()
    assert np.array_equal(encode(second, rows, 4, 5).toarray(), one)


def test_a_copy_that_was_damaged_is_made_again(cache, npz):
    ref = {**npz_ref(npz), "identity": "pair"}
    load_dictionary(ref)
    weights = cache / "pair" / converted_dictionaries.WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    found = load_dictionary(ref)
    assert np.array_equal(found.w_dec.numpy(), gemma_scope_arrays()["W_dec"])
    weights.write_bytes(data[:-4])
    load_dictionary(ref)
    (cache / "pair" / converted_dictionaries.MARKER).write_text(json.dumps({"identity": "other"}))
    assert load_dictionary(ref).d_sae == D_SAE


def test_a_stop_while_converting_leaves_nothing_that_is_taken_for_a_copy(cache, npz):
    ref = {**npz_ref(npz), "identity": "pair"}

    def stop(phase, done, total, unit):
        if not list(cache.glob(".pair.*")):
            return
        raise JobStopped

    with pytest.raises(JobStopped):
        load_dictionary(ref, stop)
    assert not (cache / "pair").exists() and list(cache.glob(".pair.*")) == []
    assert load_dictionary(ref).d_sae == D_SAE


def test_what_is_refused_is_not_written(cache, tmp_path):
    path = tmp_path / "params.npz"
    arrays = gemma_scope_arrays()
    arrays["W_dec"][0, 0] = np.nan
    np.savez(path, **arrays)
    with pytest.raises(TerminalFailure, match="NotFinite"):
        load_dictionary({**npz_ref(path), "identity": "pair"})
    assert not (cache / "pair").exists()


def test_a_float32_file_that_needs_no_copy_gets_none(cache, tmp_path):
    path = tmp_path / "params.safetensors"
    save_file({k: torch.from_numpy(v) for k, v in gemma_scope_arrays().items()}, path)
    ref = {**npz_ref(path), "format": "gemma-scope-safetensors", "identity": "pair"}
    assert load_dictionary(ref).d_sae == D_SAE
    assert not (cache / "pair").exists()


def resident_bytes_of(path):
    """Return how much of a file this process has in memory, over all of its maps."""
    found, here = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            here = line.endswith(str(path))
        elif here and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells")
def test_pages_of_another_librarys_map_are_given_back_and_read_again(tmp_path):
    path = tmp_path / "x.safetensors"
    saved = torch.randn(2**20)
    save_file({"a": saved}, path)
    tensor = load_file(path)["a"]
    assert torch.equal(tensor, saved) and resident_bytes_of(path) >= tensor.nbytes
    FilePages.now().release(tensor)
    assert resident_bytes_of(path) < tensor.nbytes / 8
    assert torch.equal(tensor, saved)


def test_memory_of_no_file_is_not_given_back():
    own = torch.arange(2**20)
    FilePages.now().release(own)
    FilePages.now().release(own[1::2])
    FilePages(()).release(own)
    assert torch.equal(own, torch.arange(2**20))
