from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from loopscope.inputs.file_stamps import FileStamp
from loopscope.inputs.files import HashMemo, default_cache
from loopscope.numerics.model import half_precision
from loopscope.state.failures import JobStopped, TerminalFailure
from loopscope.worker.model_sources import MARKER, local_model_folder, sha256_of
from loopscope.worker.models import load_model, share_weights
from tests.tiny_models import folder_reference, save_rope_model


def quiet(*progress):
    return None


@pytest.fixture
def copied_folder(rope_model_folder, tmp_path):
    return shutil.copytree(rope_model_folder, tmp_path / "model")


@pytest.fixture
def garbage_gguf(tmp_path):
    """A reference to a GGUF file that is none, with the right sha256."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF, but not really")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "name": "tiny/gguf",
        "dtype": "float32",
        "identity": "a" * 64,
        "source": {"kind": "gguf", "path": str(path)},
        "files": {path.name: digest},
    }


def converted(ref, cache, model_folder):
    """Put a finished conversion where the worker looks for it, as the worker writes it."""
    folder = cache / "loopscope" / "models" / ref["identity"]
    shutil.copytree(model_folder, folder)
    files = {}
    for path in sorted(folder.iterdir()):
        stamp = FileStamp.of(path)
        hashed = hashlib.sha256(path.read_bytes()).hexdigest()
        files[path.name] = {"sha256": hashed, "bytes": stamp.bytes, "stamp": stamp}
    marker = {"identity": ref["identity"], "source": ref["source"], "files": files}
    (folder / MARKER).write_text(json.dumps(marker))
    return folder


def reason_of(call):
    with pytest.raises(TerminalFailure) as failure:
        call()
    return failure.value.reason


def test_bridge_and_hugging_face_share_one_copy_of_the_weights(any_model):
    of_bridge = {p.data_ptr() for p in any_model.bridge.original_model.parameters()}
    assert all(p.data_ptr() in of_bridge for p in any_model.hf_model.parameters())


def test_a_loaded_model_is_frozen_and_in_evaluation_mode(any_model):
    for part in (any_model.bridge, any_model.hf_model):
        assert not part.training
        assert not any(p.requires_grad for p in part.parameters())


def test_half_precision_is_multiplied_in_float32_where_the_processor_has_no_instructions_for_it(
    rope_model_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(half_precision, "is_slow", lambda weight: weight.dtype == torch.bfloat16)
    ref = {**folder_reference(rope_model_folder), "dtype": "bfloat16"}
    model = load_model(ref, tmp_path, "cpu", quiet)  # bridge and plain model were compared
    for part in (model.bridge.original_model, model.hf_model):
        layers = [one for one in part.modules() if isinstance(one, torch.nn.Linear)]
        assert layers and all(isinstance(one, half_precision.WideLinear) for one in layers)
        assert all(one.weight.dtype == torch.bfloat16 for one in layers)


def test_a_loaded_model_knows_its_shape(rope_model, learned_position_model):
    assert (rope_model.d_model, rope_model.n_layers) == (32, 4)
    assert (learned_position_model.d_model, learned_position_model.n_layers) == (32, 3)
    assert rope_model.eos_tokens == {2}
    assert rope_model.context_tokens_max == 128
    assert rope_model.causal.head.softcap == 30.0


def test_weights_that_the_bridge_changed_are_refused(any_model):
    plain = torch.nn.Linear(2, 2)
    changed = torch.nn.Linear(2, 2)
    assert reason_of(lambda: share_weights(plain, changed, "x")) == "WeightsProcessed"


def test_every_text_gets_exactly_one_bos(any_model):
    tokens = any_model.encode("the wine of paris")
    assert tokens.count(any_model.bos_token) == 1
    assert tokens[0] == any_model.bos_token


def test_a_tokenizer_that_adds_two_bos_by_itself_still_gives_one(copied_folder, tmp_path):
    path = copied_folder / "tokenizer.json"
    told = json.loads(path.read_text())
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    text = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    told["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, bos, text[0]],
        "pair": [bos, bos, *text],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [1], "tokens": ["<bos>"]}},
    }
    path.write_text(json.dumps(told))
    from transformers import AutoTokenizer

    by_itself = AutoTokenizer.from_pretrained(str(copied_folder))("the wine")["input_ids"]
    assert by_itself[:2] == [1, 1], "the tokenizer of this test does add two"
    model = load_model(folder_reference(copied_folder), tmp_path, "cpu", quiet)
    tokens = model.encode("the wine")
    assert tokens[0] == model.bos_token and tokens.count(model.bos_token) == 1


def test_a_text_that_brings_its_own_bos_is_refused(any_model):
    assert reason_of(lambda: any_model.encode("<bos> the wine")) == "DoubledBos"


@pytest.mark.parametrize("token", ["<bos>", "<eos>", "<pad>"])
def test_a_text_with_a_special_token_inside_is_refused_by_name(any_model, token):
    with pytest.raises(TerminalFailure, match=f"special token '{token}'") as failure:
        any_model.encode(f"the wine {token} is")
    assert failure.value.reason == "SpecialTokenInText"


def test_a_text_without_tokens_is_refused(any_model):
    assert reason_of(lambda: any_model.encode("")) == "EmptyText"


def test_a_continuation_keeps_its_leading_space(any_model):
    opening = any_model.encode("the capital of")
    whole = any_model.encode("the capital of france is")
    assert any_model.continuation(opening, whole[len(opening) :]) == " france is"
    assert any_model.continuation(opening, []) == ""


def test_a_hook_of_another_model_is_refused(any_model):
    assert reason_of(lambda: any_model.place("blocks.40.hook_resid_post")) == "UnknownHook"


def test_a_tokenizer_without_bos_is_refused(tmp_path, one_torch_thread):
    folder = save_rope_model(tmp_path / "model", with_bos=False)
    ref = folder_reference(folder)
    assert reason_of(lambda: load_model(ref, tmp_path, "cpu", quiet)) == "TokenizerWithoutBos"


def test_a_tokenizer_without_bos_begins_texts_with_the_token_that_the_spec_names(
    tmp_path, one_torch_thread
):
    folder = save_rope_model(tmp_path / "model", with_bos=False)
    model = load_model({**folder_reference(folder), "bos_token": "<eos>"}, tmp_path, "cpu", quiet)
    assert model.encode("the wine")[0] == model.tokenizer.eos_token_id


def test_a_token_that_the_tokenizer_lacks_is_refused_with_those_that_it_has(
    tmp_path, one_torch_thread
):
    ref = {**folder_reference(save_rope_model(tmp_path / "model")), "bos_token": "<start>"}
    with pytest.raises(TerminalFailure, match=r"'<start>' is no token of tiny/model.*'<bos>'"):
        load_model(ref, tmp_path, "cpu", quiet)


def test_a_changed_file_is_noticed_also_after_it_was_hashed(copied_folder, tmp_path):
    ref = folder_reference(copied_folder)
    assert local_model_folder(ref, tmp_path, quiet) == copied_folder
    config = copied_folder / "config.json"
    config.write_text(config.read_text() + "\n")
    assert reason_of(lambda: local_model_folder(ref, tmp_path, quiet)) == "InputChanged"


def overwrite_under_the_old_time(path):
    """Write other bytes of the same size into a file, and give it its modification time back."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_that_was_overwritten_under_its_old_time_is_noticed(copied_folder, tmp_path):
    ref = folder_reference(copied_folder)
    real = time.time_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: real() + 60 * 10**9)  # old enough to be remembered
        assert local_model_folder(ref, tmp_path, quiet) == copied_folder
        overwrite_under_the_old_time(copied_folder / "model.safetensors")
        assert reason_of(lambda: local_model_folder(ref, tmp_path, quiet)) == "InputChanged"


def test_what_an_apply_has_hashed_no_worker_hashes_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 60 * 10**9)
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    memo = HashMemo()
    assert sha256_of(path) == memo.sha256(path) == hashlib.sha256(b"one").hexdigest()
    memo.path.write_text(json.dumps(dict.fromkeys(json.loads(memo.path.read_text()), "f" * 64)))
    assert sha256_of(path) == "f" * 64, "it was not read again"
    path.write_bytes(b"two")
    assert sha256_of(path) == hashlib.sha256(b"two").hexdigest()


def test_a_missing_file_is_noticed(copied_folder, tmp_path):
    ref = folder_reference(copied_folder)
    (copied_folder / "tokenizer.json").unlink()
    assert reason_of(lambda: local_model_folder(ref, tmp_path, quiet)) == "InputChanged"


def test_weights_that_would_be_unpickled_are_refused(copied_folder, tmp_path):
    (copied_folder / "model.safetensors").rename(copied_folder / "pytorch_model.bin")
    ref = folder_reference(copied_folder)
    assert reason_of(lambda: local_model_folder(ref, tmp_path, quiet)) == "UnsafeWeights"


def test_code_from_a_model_folder_is_never_run(copied_folder, tmp_path):
    config = json.loads((copied_folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}
    config["model_type"] = "evil"
    (copied_folder / "config.json").write_text(json.dumps(config))
    (copied_folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    ref = folder_reference(copied_folder)
    assert reason_of(lambda: load_model(ref, tmp_path, "cpu", quiet)) == "ModelNotLoadable"
    assert not (tmp_path / "ran").exists()


def test_a_package_that_is_not_installed_is_named(tmp_path):
    ref = {
        "name": "x", "dtype": "float32", "identity": "b" * 64, "files": {},
        "source": {"kind": "package", "package": "no-such-package-here", "sha256": "0" * 64},
    }  # fmt: skip
    with pytest.raises(TerminalFailure, match="pip install no-such-package-here"):
        local_model_folder(ref, tmp_path, quiet)


def installed(site, package, files, requires=""):
    """Write an installed package as pip leaves it."""
    name = package.replace("-", "_")
    records = []
    for file, data in files.items():
        path = site / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        records.append(f"{name}/{file},,")
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
    (info / "METADATA").write_text(head + requires)
    (info / "RECORD").write_text("\n".join(records) + "\n")


def test_the_parts_of_a_package_are_put_together_and_none_of_its_code_runs(
    tmp_path, monkeypatch, garbage_gguf
):
    site, whole = tmp_path / "site", b"GGUF, but not really"
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\ndef assemble(path):\n    return path\n".encode()
    installed(site, "parted-gguf", {"__init__.py": code}, "Requires-Dist: parted-gguf-part1\n")
    installed(site, "parted-gguf-part1", {"x.gguf.part00": whole[:9], "x.gguf.part01": whole[9:]})
    monkeypatch.syspath_prepend(str(site))
    digest = hashlib.sha256(whole).hexdigest()
    source = {"kind": "package", "package": "parted-gguf", "sha256": digest}
    ref = {**garbage_gguf, "source": source, "files": {"x.gguf": digest}}
    reason = reason_of(lambda: local_model_folder(ref, tmp_path / "cache", quiet))
    assert reason == "ConversionFailed"  # so its bytes were those of the hash
    assert not (tmp_path / "ran").exists()
    (site / "parted_gguf_part1" / "x.gguf.part01").unlink()
    assert reason_of(lambda: local_model_folder(ref, tmp_path / "cache", quiet)) == "InputChanged"


def test_a_gguf_file_with_another_hash_is_not_converted(garbage_gguf, tmp_path):
    garbage_gguf["files"] = {"model.gguf": "0" * 64}
    assert reason_of(lambda: local_model_folder(garbage_gguf, tmp_path, quiet)) == "InputChanged"


def test_a_conversion_that_fails_leaves_nothing_behind(garbage_gguf, tmp_path):
    cache = tmp_path / "cache"
    reason = reason_of(lambda: local_model_folder(garbage_gguf, cache, quiet))
    assert reason == "ConversionFailed"
    left = [p.name for p in (cache / "loopscope" / "models").iterdir()]
    assert left in ([], [f"{garbage_gguf['identity']}.lock"])


def test_a_conversion_stops_at_once_when_the_job_does(garbage_gguf, tmp_path):
    calls = []

    def stop(*progress):
        calls.append(progress)
        if len(calls) > 1:
            raise JobStopped("shutdown")

    cache = tmp_path / "cache"
    with pytest.raises(JobStopped):
        local_model_folder(garbage_gguf, cache, stop)
    models = cache / "loopscope" / "models"
    assert not [p for p in models.iterdir() if p.suffix != ".lock"]


def test_a_finished_conversion_is_used_even_when_its_source_is_gone(
    garbage_gguf, tmp_path, rope_model_folder
):
    folder = converted(garbage_gguf, tmp_path, rope_model_folder)
    (tmp_path / "model.gguf").unlink()
    assert local_model_folder(garbage_gguf, tmp_path, quiet) == folder


@pytest.mark.parametrize("damage", ["truncate", "marker", "delete", "rewrite", "overwrite"])
def test_a_damaged_conversion_is_not_used(garbage_gguf, tmp_path, rope_model_folder, damage):
    folder = converted(garbage_gguf, tmp_path, rope_model_folder)
    garbage_gguf["files"] = {"model.gguf": "0" * 64}
    weights = folder / "model.safetensors"
    if damage == "truncate":
        os.truncate(weights, 100)
    elif damage == "marker":
        (folder / MARKER).write_text("{")
    elif damage == "delete":
        (folder / "config.json").unlink()
    elif damage == "overwrite":
        overwrite_under_the_old_time(weights)
    else:
        weights.write_bytes(bytes(weights.stat().st_size))
    assert reason_of(lambda: local_model_folder(garbage_gguf, tmp_path, quiet)) == "InputChanged"


def test_a_touched_but_equal_file_is_hashed_again_and_accepted(
    garbage_gguf, tmp_path, rope_model_folder
):
    folder = converted(garbage_gguf, tmp_path, rope_model_folder)
    os.utime(folder / "config.json", ns=(1, 1))
    assert local_model_folder(garbage_gguf, tmp_path, quiet) == folder


def test_a_conversion_of_an_older_version_is_hashed_and_used(
    garbage_gguf, tmp_path, rope_model_folder
):
    folder = converted(garbage_gguf, tmp_path, rope_model_folder)
    marker = json.loads((folder / MARKER).read_text())
    for name, entry in marker["files"].items():
        del entry["stamp"]
        entry["modified_ns"] = (folder / name).stat().st_mtime_ns
    (folder / MARKER).write_text(json.dumps(marker))
    assert local_model_folder(garbage_gguf, tmp_path, quiet) == folder


def test_an_unknown_kind_of_source_is_refused(tmp_path):
    ref = {"name": "x", "identity": "c" * 64, "files": {}, "source": {"kind": "ftp"}}
    assert reason_of(lambda: local_model_folder(ref, tmp_path, quiet)) == "UnsupportedModel"


def test_the_cache_folder_can_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path))
    assert default_cache() == tmp_path


LAYER = "model.layers.1.mlp.down_proj.weight"


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def remove_tokenizer(folder):
    for path in folder.glob("*token*"):
        path.unlink()


BROKEN_MODELS = {
    "half of the weights file": (lambda f: os.truncate(f / "model.safetensors", 5000), "header"),
    "bytes that are no weights": (
        lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 999),
        "header",
    ),
    "a missing matrix": (
        lambda f: change_weights(f, lambda w: w.pop(LAYER)),
        f"{LAYER} is missing",
    ),
    "a missing norm": (
        lambda f: change_weights(f, lambda w: w.pop("model.norm.weight")),
        "model.norm.weight is missing",
    ),
    "a matrix of another shape": (
        lambda f: change_weights(f, lambda w: w.update({LAYER: w[LAYER][:, :9].clone()})),
        r"is \(32, 9\), expected \(32, 64\)",
    ),
    "a configuration of another model": (lambda f: change_config(f, vocab_size=500), "expected"),
    "a configuration of more layers": (lambda f: change_config(f, num_hidden_layers=9), "layers"),
    "a configuration that is no JSON": (
        lambda f: (f / "config.json").write_text("{"),
        "cannot be read",
    ),
    "no tokenizer": (remove_tokenizer, "holds no tokenizer"),
    "half a tokenizer": (lambda f: os.truncate(f / "tokenizer.json", 99), "line"),
}


@pytest.mark.parametrize("damage", BROKEN_MODELS)
def test_a_model_that_cannot_be_loaded_is_refused_in_one_message(copied_folder, tmp_path, damage):
    harm, words = BROKEN_MODELS[damage]
    harm(copied_folder)
    with pytest.raises(TerminalFailure, match=words) as failure:
        load_model(folder_reference(copied_folder), tmp_path, "cpu", quiet)
    assert failure.value.reason == "ModelNotLoadable"
    assert "\n" not in failure.value.message and len(failure.value.message) < 700


@pytest.mark.parametrize("value", [float("nan"), 1e38])
def test_weights_that_are_no_numbers_or_overflow_are_named(copied_folder, tmp_path, value):
    change_weights(copied_folder, lambda w: w[LAYER].fill_(value))
    with pytest.raises(TerminalFailure, match="NaN or infinity") as failure:
        load_model(folder_reference(copied_folder), tmp_path, "cpu", quiet)
    assert failure.value.reason == "NotFinite"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OSError(errno.EIO, "Input/output error"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
)
def test_what_may_pass_by_itself_is_not_blamed_on_the_model(
    rope_model_folder, tmp_path, monkeypatch, error
):
    from transformers import AutoModelForCausalLM

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(type(error)):
        load_model(folder_reference(rope_model_folder), tmp_path, "cpu", quiet)
