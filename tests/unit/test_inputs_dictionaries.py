import hashlib
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from safetensors.numpy import save

from loopscope.inputs import registry, releases
from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.files import HashMemo
from loopscope.inputs.hub import Hub
from tests.fake_hub import FakeHub

D_IN, D_SAE = 6, 20
HOOK = "blocks.3.hook_resid_post"
CANONICAL = {"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_3/width_16k/canonical"}
GEMMA_SCOPE = "google/gemma-scope-2b-pt-res"
FOLDER = "layer_3/width_16k/average_l0_59"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def arrays(d_in=D_IN, d_sae=D_SAE, dtype=np.float32, threshold=True) -> dict[str, np.ndarray]:
    shapes = {"w_enc": (d_in, d_sae), "w_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    if threshold:
        shapes["threshold"] = (d_sae,)
    return {name: np.zeros(shape, dtype=dtype) for name, shape in shapes.items()}


def npz(**changes) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **{**arrays(), **changes})
    return stream.getvalue()


def config(**changes) -> bytes:
    known = {
        "architecture": "topk", "k": 4, "d_in": D_IN, "d_sae": D_SAE, "dtype": "float16",
        "normalize_activations": "none", "reshape_activations": "none",
        "apply_b_dec_to_input": True, "metadata": {"hook_name": HOOK, "sae_lens_version": "6.54"},
    }  # fmt: skip
    changed = {**known, **changes}
    return json.dumps({name: value for name, value in changed.items() if value != "gone"}).encode()


def weights(threshold=False, **more) -> bytes:
    named = {**arrays(dtype=np.float16, threshold=threshold), **more}
    return save(
        {n.replace("w_", "W_"): tensor for n, tensor in named.items() if tensor is not None}
    )


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def saelens(folder: Path, cfg: bytes | None = None, tensors: bytes | None = None) -> Path:
    files = {"cfg.json": cfg or config(), "sae_weights.safetensors": tensors or weights()}
    return write(folder, files)


@pytest.fixture
def memo(tmp_path):
    return HashMemo(tmp_path / "cache" / "hashes.json")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with FakeHub() as fake:
        yield fake, Hub(fake.endpoint, tmp_path / "hub-cache", timeout_seconds=5)


def test_a_saelens_folder_tells_its_shape_hook_and_hashes(tmp_path, memo):
    folder = saelens(tmp_path / "sae")
    facts = describe_dictionary({"path": str(folder)}, memo=memo)
    assert (facts.architecture, facts.d_in, facts.d_sae) == ("topk", D_IN, D_SAE)
    assert (facts.hook_name, facts.dtype, facts.notes) == (HOOK, "float16", ())
    assert facts.ref == {
        "identity": facts.ref["identity"],
        "format": "saelens",
        "source": {"kind": "folder", "path": str(folder)},
        "files": {"cfg.json": sha256(config()), "sae_weights.safetensors": sha256(weights())},
        "architecture": "topk",
        "d_in": D_IN,
        "d_sae": D_SAE,
    }


def test_a_gemma_scope_file_is_a_jumprelu_at_an_unknown_hook(tmp_path, memo):
    folder = write(tmp_path / "scope", {"params.npz": npz()})
    path = folder / "params.npz"
    facts = describe_dictionary({"path": str(path)}, memo=memo)
    assert (facts.architecture, facts.d_in, facts.d_sae) == ("jumprelu", D_IN, D_SAE)
    assert (facts.hook_name, facts.dtype) == (None, "float32")
    assert facts.ref["source"] == {"kind": "file", "path": str(path)}
    assert facts.ref["files"] == {"params.npz": sha256(npz())}
    assert describe_dictionary({"path": str(folder)}, memo=memo) == facts


def test_a_gemma_scope_2_folder_is_read_from_safetensors(tmp_path, memo):
    tensors = save(arrays())
    folder = write(tmp_path / "scope", {"params.safetensors": tensors})
    facts = describe_dictionary({"path": str(folder)}, memo=memo)
    assert (facts.ref["format"], facts.architecture) == ("gemma-scope-safetensors", "jumprelu")
    write(folder, {"config.json": b'{"architecture": "gated"}'})
    with pytest.raises(InputRefused, match="gated"):
        describe_dictionary({"path": str(folder)}, memo=memo)


def test_the_identity_knows_bytes_but_not_places(tmp_path, memo):
    first = describe_dictionary({"path": str(saelens(tmp_path / "a"))}, memo=memo)
    same = describe_dictionary({"path": str(saelens(tmp_path / "b"))}, memo=memo)
    other = saelens(tmp_path / "c", config(k=5))
    assert same.ref["identity"] == first.ref["identity"]
    changed = describe_dictionary({"path": str(other)}, memo=memo)
    assert changed.ref["identity"] != first.ref["identity"]


def test_each_supported_architecture_is_accepted(tmp_path, memo):
    one = np.zeros((), dtype=np.float16)
    before_6 = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}, "metadata": "gone",
                "hook_point": HOOK, "architecture": "standard", "k": "gone",
                "normalize_activations": False}  # fmt: skip
    batchtopk = config(architecture="batchtopk", rescale_acts_by_decoder_norm=False)
    for name, cfg, tensors in [
        ("standard", config(architecture="standard"), weights()),
        ("standard", config(architecture="standard"), weights(scaling_factor=one)),
        ("jumprelu", config(architecture="jumprelu"), weights(threshold=True)),
        ("topk", config(), weights()),
        ("topk", config(**before_6), weights()),
        ("batchtopk", batchtopk, weights(topk_threshold=one)),
        ("batchtopk", batchtopk, weights(threshold=True)),
    ]:
        facts = describe_dictionary(
            {"path": str(saelens(tmp_path / "sae", cfg, tensors))}, memo=memo
        )
        assert (facts.architecture, facts.hook_name) == (name, HOOK)


@pytest.mark.parametrize(
    ("cfg", "tensors", "message"),
    [
        (config(architecture="abstopk"), None, "architecture 'abstopk' is not supported: its lat"),
        (config(architecture="crosscoder"), None, "reads several places at once"),
        (config(architecture="matryoshka_batchtopk"), None, "rescale_acts_by_decoder_norm is miss"),
        (config(normalize_activations="layer_norm"), None, "layer_norm"),
        (config(activation_fn="tanh-relu"), None, "tanh-relu"),
        (config(reshape_activations="hook_z"), None, "hook_z"),
        (config(metadata={"hook_name": "blocks.0.attn.hook_q"}), None, "blocks.0.attn.hook_q"),
        (config(k=0), None, "positive"),
        (config(k=D_SAE + 1), None, "only 20 latents"),
        (config(k="gone"), None, "expected k"),
        (config(d_in="gone"), None, "d_in"),
        (config(d_sae=D_SAE + 1), None, "do not belong together"),
        (config(architecture="jumprelu"), None, "expected threshold of shape"),
        (config(), weights(w_skip=np.zeros(3)), "w_skip"),
        (config(), weights(b_dec=np.zeros(D_IN + 1)), "b_dec"),
        (config(), weights(w_enc=None), "W_enc"),
        (config(), weights(w_enc=np.zeros((D_IN, D_SAE), dtype=np.int32)), "I32"),
        (b"{", None, "cfg.json"),
        (config(), weights()[:-4], "truncated"),
    ],
)
def test_what_cannot_be_applied_exactly_is_refused_by_name(tmp_path, memo, cfg, tensors, message):
    folder = saelens(tmp_path / "sae", cfg, tensors)
    with pytest.raises(InputRefused, match=message) as refused:
        describe_dictionary({"path": str(folder)}, memo=memo)
    assert refused.value.field == "path"


def header(entries: object, length: int | None = None, data: bytes = b"") -> bytes:
    content = json.dumps(entries).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + data


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"short",
        struct.pack("<Q", 2**63) + b"{}",
        header({}, length=3),
        header([]),
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        header({"W_enc": 3}),
        header({"W_enc": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}),
        header({"W_enc": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}),
        header({"W_enc": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, data=bytes(4)),
        header({"W_enc": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, data=bytes(4)),
        header({"W_enc": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        header({"W_enc": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, data=bytes(4)),
    ],
)
def test_a_hostile_safetensors_header_is_refused(tmp_path, memo, hostile):
    folder = saelens(tmp_path / "sae")
    (folder / "sae_weights.safetensors").write_bytes(hostile)
    with pytest.raises(InputRefused):
        describe_dictionary({"path": str(folder)}, memo=memo)


def archive(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in members.items():
            target.writestr(f"{name}.npy", data)
    return stream.getvalue()


def objects() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, w_enc=np.array([{"a": 1}], dtype=object))
    return stream.getvalue()


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"PK\x03\x04 no archive",
        objects(),
        archive(w_enc=b"no array"),
        archive(w_enc=b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b" " * 2**20),
        archive(w_enc=b"\x93NUMPY\x01\x00" + struct.pack("<H", 9) + b"__import"),
        archive(**{f"w{index}": b"" for index in range(100)}),
        npz(w_enc=np.zeros((D_IN, D_SAE), dtype=np.int64)),
        npz(w_enc=np.zeros(D_SAE, dtype=np.float32)),
        npz(threshold=np.zeros(3, dtype=np.float32)),
        npz(extra=np.zeros(3, dtype=np.float32)),
        npz()[:-30],
    ],
)
def test_a_hostile_npz_file_is_refused_and_never_unpickled(tmp_path, memo, hostile):
    path = tmp_path / "params.npz"
    path.write_bytes(hostile)
    with pytest.raises(InputRefused):
        describe_dictionary({"path": str(path)}, memo=memo)


def test_missing_foreign_and_pickled_files_are_refused(tmp_path, memo):
    path = tmp_path / "sae.pt"
    path.write_bytes(pickle.dumps({}))
    empty = write(tmp_path / "empty", {})
    lonely = write(tmp_path / "lonely", {"sae_weights.safetensors": weights()})
    for wrong, message in [
        (path, "no pickle"), (empty, "holds none of"), (tmp_path / "nowhere", "there is no"),
        (lonely, "cfg.json: missing"),
    ]:  # fmt: skip
        with pytest.raises(InputRefused, match=message) as refused:
            describe_dictionary({"path": str(wrong)}, memo=memo)
        assert refused.value.field == "path"


def test_a_wrong_sha256_is_refused_with_both_hashes(tmp_path, memo):
    folder = saelens(tmp_path / "sae")
    describe_dictionary({"path": str(folder), "sha256": sha256(weights())}, memo=memo)
    with pytest.raises(InputRefused, match=sha256(weights())) as refused:
        describe_dictionary({"path": str(folder), "sha256": "0" * 64}, memo=memo)
    assert refused.value.field == "sha256"


def test_a_release_is_pinned_to_a_commit_and_only_its_header_is_fetched(hub, memo):
    fake, client = hub
    params = npz(**arrays(64, 2**14))
    commit = fake.add(GEMMA_SCOPE, {f"{FOLDER}/params.npz": params})
    facts = describe_dictionary(CANONICAL, hub=client, memo=memo)
    assert facts.ref["source"] == {
        "kind": "hub", "repo": GEMMA_SCOPE, "revision": commit, "path": FOLDER
    }  # fmt: skip
    assert facts.ref["files"] == {"params.npz": sha256(params)}
    assert facts.ref["format"] == "gemma-scope-npz"
    assert (facts.d_in, facts.d_sae, facts.hook_name) == (64, 2**14, HOOK)
    assert fake.bytes_sent < len(params) / 5
    wrong = {**CANONICAL, "sha256": "0" * 64}
    with pytest.raises(InputRefused, match=sha256(params)):
        describe_dictionary(wrong, hub=client, memo=memo)


def test_a_saelens_release_takes_its_hook_from_its_config_and_notes_how_it_was_trained(hub, memo):
    fake, client = hub
    place = "blocks.8.hook_resid_pre_768"
    hook = "blocks.8.hook_resid_pre"
    cfg = config(architecture="standard", hook_point=hook, metadata="gone")
    fake.add(
        "jbloom/GPT2-Small-Feature-Splitting-Experiment-Layer-8",
        {f"{place}/cfg.json": cfg, f"{place}/sae_weights.safetensors": weights()},
    )
    release = {"release": "gpt2-small-res-jb-feature-splitting", "id": place}
    facts = describe_dictionary(release, hub=client, memo=memo)
    assert (facts.architecture, facts.hook_name) == ("standard", hook)
    assert facts.ref["files"]["cfg.json"] == sha256(cfg)
    assert "center_writing_weights" in facts.notes[0]


def test_a_gemma_scope_2_release_and_a_plain_repository_are_resolved(hub, memo):
    fake, client = hub
    place = "resid_post/layer_12_width_16k_l0_medium"
    fake.add(
        "google/gemma-scope-2-270m-pt",
        {f"{place}/params.safetensors": save(arrays()),
         f"{place}/config.json": b'{"architecture": "jump_relu"}'},
    )  # fmt: skip
    named = {"release": "gemma-scope-2-270m-pt-res", "id": "layer_12_width_16k_l0_medium"}
    facts = describe_dictionary(named, hub=client, memo=memo)
    assert facts.ref["format"] == "gemma-scope-safetensors"
    assert facts.hook_name == "blocks.12.hook_resid_post"
    assert set(facts.ref["files"]) == {"params.safetensors", "config.json"}
    fake.add("me/mine", {"one/cfg.json": config(), "one/sae_weights.safetensors": weights()})
    plain = describe_dictionary({"release": "me/mine", "id": "one"}, hub=client, memo=memo)
    assert (plain.ref["format"], plain.hook_name) == ("saelens", HOOK)


@pytest.mark.parametrize(
    ("release", "id_", "field", "message"),
    [
        ("gemma-scope-2b-pt-res-canonial", "x", "release", "did you mean gemma-scope-2b-pt-res-c"),
        (CANONICAL["release"], "layer_3/width_15k/canonical", "id", "layer_3/width_16k/canonical"),
        ("qwen-scope", "x", "release", "unknown release"),
        (
            "deepseek-r1-distill-llama-8b-qresearch",
            "blocks.19.hook_resid_post",
            "convert",
            "write convert: sealed",
        ),
        ("gemma-scope-2b-pt-res", "embedding/width_4k/average_l0_6", "id", "hook_embed"),
        ("me/mine", "../secret", "id", "not a folder"),
        (CANONICAL["release"], CANONICAL["id"], "release", "no repository"),
    ],
)
def test_a_release_that_cannot_be_used_is_refused_by_name(hub, memo, release, id_, field, message):
    with pytest.raises(InputRefused, match=message) as refused:
        describe_dictionary({"release": release, "id": id_}, hub=hub[1], memo=memo)
    assert refused.value.field == field


def test_a_release_that_lacks_its_file_or_a_busy_hub_are_told_apart(hub, memo):
    fake, client = hub
    fake.add(GEMMA_SCOPE, {"README.md": b""})
    with pytest.raises(InputRefused, match=r"no layer_3/.*/params.npz"):
        describe_dictionary(CANONICAL, hub=client, memo=memo)
    fake.broken_with = 503
    with pytest.raises(ResolutionPending):
        describe_dictionary(CANONICAL, hub=client, memo=memo)


def test_a_hub_that_fails_amid_a_header_is_no_fault_of_the_file(hub, memo):
    fake, client = hub
    fake.add(GEMMA_SCOPE, {f"{FOLDER}/params.npz": npz()})
    fake.files_broken_with = 500
    with pytest.raises(ResolutionPending):
        describe_dictionary(CANONICAL, hub=client, memo=memo)


def test_a_gated_dictionary_says_what_to_do(hub, memo):
    fake, client = hub
    fake.add(GEMMA_SCOPE, {f"{FOLDER}/params.npz": npz()}, gated=True)
    with pytest.raises(InputRefused, match="HF_TOKEN"):
        describe_dictionary(CANONICAL, hub=client, memo=memo)


def test_a_hostile_remote_header_is_refused_not_downloaded(hub, memo):
    fake, client = hub
    hostile = struct.pack("<Q", 90_000_000) + b"{" * 1000
    fake.add("me/mine", {"one/cfg.json": config(), "one/sae_weights.safetensors": hostile})
    with pytest.raises(InputRefused, match="claims 90000000"):
        describe_dictionary({"release": "me/mine", "id": "one"}, hub=client, memo=memo)


def test_a_registry_that_would_change_what_the_weights_compute_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "pretrained_saes.yaml"
    file.write_text(
        "mine:\n  config_overrides:\n    k: 3\n  conversion_func: null\n  repo_id: me/mine\n"
        "  saes:\n  - id: one\n    path: one\n"
    )
    monkeypatch.setattr(registry, "registry_path", lambda: file)
    with pytest.raises(InputRefused, match="the registry changes k of mine one"):
        releases.find_release("mine", "one")
