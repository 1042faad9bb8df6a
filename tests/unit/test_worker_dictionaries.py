"""Dictionaries are read as SAELens reads them, or refused by name; never a changed file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from loopscope.numerics.dictionaries.sparse import decode, encode
from loopscope.state.failures import TerminalFailure, TransientFailure
from loopscope.state.files import file_sha256
from loopscope.worker.dictionaries import load_dictionary

D_IN, D_SAE = 8, 24
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def weights(**extra: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "W_enc": normal(D_IN, D_SAE),
        "b_enc": 0.1 * normal(D_SAE),
        "W_dec": normal(D_SAE, D_IN, seed=1) * torch.linspace(0.2, 3, D_SAE)[:, None],
        "b_dec": normal(D_IN),
        **extra,
    }


def config(architecture: str, **extra: object) -> dict[str, object]:
    return {
        "architecture": architecture,
        "d_in": D_IN,
        "d_sae": D_SAE,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.0", "hook_name": "blocks.1.hook_resid_post"},
        **extra,
    }


def folder_ref(folder: Path, architecture: str = "standard") -> dict[str, object]:
    names = ("cfg.json", "sae_weights.safetensors")
    return {
        "identity": "0" * 64,
        "format": "saelens",
        "source": {"kind": "folder", "path": str(folder)},
        "files": {name: file_sha256(folder / name) for name in names},
        "architecture": architecture,
        "d_in": D_IN,
        "d_sae": D_SAE,
    }


def saelens_folder(folder: Path, cfg: dict[str, object], state: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(cfg))
    save_file(state, folder / "sae_weights.safetensors")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(TerminalFailure) as caught:
        load_dictionary(folder_ref(folder))
    assert caught.value.reason == "UnsupportedDictionary"
    return caught.value.message


D_OUT = 6


def transcoder(**extra: torch.Tensor) -> dict[str, torch.Tensor]:
    written = {"W_dec": normal(D_SAE, D_OUT, seed=1), "b_dec": normal(D_OUT)}
    return weights(**written, **extra)


def gated() -> dict[str, torch.Tensor]:
    state = weights(r_mag=0.3 * normal(D_SAE, seed=4), b_mag=normal(D_SAE, seed=6))
    gate = state.pop("b_enc")
    return {**state, "b_gate": gate}


WRITES = {
    "apply_b_dec_to_input": False,
    "d_out": D_OUT,
    "metadata": {
        "sae_lens_version": "6.54.0",
        "hook_name": "blocks.1.mlp.hook_in",
        "hook_name_out": "blocks.1.hook_mlp_out",
    },
}
THRESHOLD, SKIP = normal(D_SAE, seed=3).abs(), normal(D_OUT, D_IN, seed=8)
BEFORE_6 = {"d_in": D_IN, "d_sae": D_SAE, "dtype": "float32"}
SAELENS_CASES = {
    "standard": (config("standard"), weights()),
    "standard-raw-input": (config("standard", apply_b_dec_to_input=False), weights()),
    "jumprelu": (config("jumprelu"), weights(threshold=normal(D_SAE, seed=3).abs())),
    "jumprelu-of-either-sign": (config("jumprelu"), weights(threshold=normal(D_SAE, seed=3))),
    "gated": (config("gated"), gated()),
    "transcoder": (config("transcoder", **WRITES), transcoder()),
    "jumprelu-transcoder": (
        config("jumprelu_transcoder", **WRITES),
        transcoder(threshold=THRESHOLD),
    ),
    "skip-transcoder": (config("skip_transcoder", **WRITES), transcoder(W_skip=SKIP)),
    "jumprelu-skip-transcoder": (
        config("jumprelu_skip_transcoder", **WRITES),
        transcoder(threshold=THRESHOLD, W_skip=SKIP),
    ),
    "topk": (config("topk", k=5), weights()),
    "topk-rescaled": (config("topk", k=5, rescale_acts_by_decoder_norm=True), weights()),
    "topk-before-6": (
        {
            **BEFORE_6,
            "hook_point": "blocks.1.hook_resid_post",
            "activation_fn_str": "topk",
            "activation_fn_kwargs": {"k": 5},
            "normalize_activations": False,
        },
        weights(scaling_factor=torch.ones(D_SAE)),
    ),
    "topk-before-6-with-another-k": (
        {**BEFORE_6, "architecture": "topk", "k": 20, "activation_fn_kwargs": {"k": 7}},
        weights(),
    ),
    "topk-6-with-options-of-before": (
        config("topk", k=7, activation_fn="topk", activation_fn_kwargs={"k": 20}),
        weights(),
    ),
}


@pytest.mark.integration  # importing SAELens takes ten seconds
@pytest.mark.parametrize("name", SAELENS_CASES)
def test_encode_and_decode_equal_those_of_saelens(name, tmp_path):
    from sae_lens import SAE

    folder = saelens_folder(tmp_path / name, *SAELENS_CASES[name])
    x = normal(40, D_IN, seed=5)
    dictionary = load_dictionary(folder_ref(folder))
    reference = SAE.load_from_disk(folder)
    with torch.no_grad():
        expected = reference.encode(x)
        rebuilt = reference(x)
    found = encode(dictionary, x, 7, 10)
    np.testing.assert_allclose(found.toarray(), expected.numpy(), atol=2e-6, rtol=1e-5)
    assert found.nnz == int((expected > 0).sum())
    torch.testing.assert_close(dictionary.reconstruct(x, found), rebuilt, atol=1e-5, rtol=1e-5)


def of_small_integers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every sum of these is exact, so ties are ties and edges are met; some rows are zero."""
    found = {name: tensor.mul(2).round() for name, tensor in state.items()}
    if "scaling_factor" in found:
        found["scaling_factor"] = torch.ones(D_SAE)
    if "r_mag" in found:
        found["r_mag"] = torch.zeros(D_SAE)
    found["W_dec"][::5] = 0
    found["W_enc"][:, 3] = found["W_enc"][:, 4]  # a latent's twin
    return found


@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(SAELENS_CASES.keys() - {"topk-rescaled"}))
def test_ties_edges_negative_sums_and_zero_rows_are_as_in_saelens(name, tmp_path):
    from sae_lens import SAE

    cfg, state = SAELENS_CASES[name]
    folder = saelens_folder(tmp_path / name, cfg, of_small_integers(state))
    x = normal(200, D_IN, seed=7).mul(2).round()
    x[:3] = 0
    dictionary, reference = load_dictionary(folder_ref(folder)), SAE.load_from_disk(folder)
    with torch.no_grad():
        expected, rebuilt = reference.encode(x), reference(x)
    found = encode(dictionary, x, 7, 10)
    if dictionary.architecture == "topk":  # of a tie either latent may be taken
        theirs, ours = (np.sort(one, axis=1) for one in (expected.numpy(), found.toarray()))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        return
    np.testing.assert_allclose(found.toarray(), expected.numpy(), atol=1e-5)
    assert found.nnz == int((expected > 0).sum())
    torch.testing.assert_close(dictionary.reconstruct(x, found), rebuilt, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["abstopk", "matching_pursuit", "temporal", "crosscoder"])
def test_an_architecture_that_is_not_applied_is_refused_with_the_reason(tmp_path, architecture):
    folder = saelens_folder(tmp_path / "sae", config(architecture), weights())
    assert f"architecture {architecture!r} is not supported: its " in refusal(folder) or (
        f"architecture {architecture!r} is not supported: it " in refusal(folder)
    )


def test_a_transcoder_takes_no_decoder_bias_from_its_rows(tmp_path):
    cfg = config("transcoder", **{**WRITES, "apply_b_dec_to_input": True})
    assert "b_dec belongs where it writes" in refusal(
        saelens_folder(tmp_path / "sae", cfg, transcoder())
    )


def trained_batchtopk(**options: object):
    """A SAELens training SAE with given weights; for inference it is saved as a JumpReLU SAE."""
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=4, **options))
    state = {**weights(), "topk_threshold": torch.tensor(1.3, dtype=torch.double)}
    sae.load_state_dict(state)
    return sae


@pytest.mark.integration
@pytest.mark.parametrize("rescale", [False, True])
def test_a_batchtopk_checkpoint_equals_the_inference_model_saelens_makes_of_it(tmp_path, rescale):
    from sae_lens import SAE

    sae = trained_batchtopk(rescale_acts_by_decoder_norm=rescale)
    sae.save_model(tmp_path / "checkpoint")
    sae.save_inference_model(tmp_path / "inference")
    x = normal(40, D_IN, seed=5)
    reference = SAE.load_from_disk(tmp_path / "inference")
    with torch.no_grad():
        expected = reference.encode(x)
    for name in ("checkpoint", "inference"):
        dictionary = load_dictionary(folder_ref(tmp_path / name))
        found = encode(dictionary, x, 100, 100)
        np.testing.assert_allclose(found.toarray(), expected.numpy(), atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(
            decode(dictionary, found), reference.decode(expected).detach(), atol=1e-5, rtol=1e-5
        )
    assert load_dictionary(folder_ref(tmp_path / "checkpoint")).architecture == "batchtopk"
    assert load_dictionary(folder_ref(tmp_path / "inference")).architecture == "jumprelu"


def test_half_precision_on_disk_is_float32_in_memory(tmp_path):
    half = {name: tensor.half() for name, tensor in weights().items()}
    dictionary = load_dictionary(
        folder_ref(saelens_folder(tmp_path / "half", config("topk", k=3, dtype="float16"), half))
    )
    assert dictionary.w_enc.dtype == torch.float32
    assert torch.equal(dictionary.w_enc, half["W_enc"].float())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architecture": "gated"}, "lack b_gate"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations 'layer_norm'"),
        ({"normalize_activations": "constant_norm_rescale"}, "constant_norm_rescale"),
        ({"normalize_activations": "expected_average_only_in"}, "expected_average_only_in"),
        ({"normalize_activations": True}, "normalize_activations"),
        (
            {"reshape_activations": "hook_z", "hook_name": "blocks.0.hook_resid_post"},
            "reshape_activations 'hook_z'",
        ),
        ({"activation_fn": "tanh-relu"}, "activation_fn 'tanh-relu'"),
        ({"rescale_acts_by_decoder_norm": True}, "rescale_acts_by_decoder_norm"),
        ({"architecture": "topk"}, "expected k to be a positive number, found None"),
        ({"architecture": "topk", "k": 99}, "only 24 latents"),
        ({"architecture": "jumprelu"}, "lack threshold"),
    ],
)
def test_what_is_not_applied_is_refused_by_name(tmp_path, change, named):
    folder = saelens_folder(tmp_path / "sae", {**config("standard"), **change}, weights())
    assert named in refusal(folder)


@pytest.mark.parametrize("name", ["scaling_factor", "finetuning_scaling_factor", "W_skip"])
def test_tensors_without_a_meaning_are_refused_by_name(tmp_path, name):
    state = weights(**{name: torch.full((D_SAE,), 2.0)})
    assert name in refusal(saelens_folder(tmp_path / "sae", config("standard"), state))


def test_an_unfinished_weights_file_is_refused(tmp_path):
    folder = saelens_folder(tmp_path / "sae", config("standard"), weights())
    path = folder / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert "safetensors" in refusal(folder)


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    folder = saelens_folder(
        tmp_path / "sae", config("standard"), {**weights(), "b_dec": torch.full((D_IN,), np.nan)}
    )
    with pytest.raises(TerminalFailure, match=r"NotFinite.*b_dec"):
        load_dictionary(folder_ref(folder))


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_a_changed_file_is_refused_before_it_is_read(tmp_path, name):
    folder = saelens_folder(tmp_path / "sae", config("standard"), weights())
    ref = folder_ref(folder)
    (folder / name).write_bytes(b"something else")
    with pytest.raises(TerminalFailure, match=f"InputChanged.*{name}"):
        load_dictionary(ref)


def test_a_missing_file_is_named(tmp_path):
    folder = saelens_folder(tmp_path / "sae", config("standard"), weights())
    ref = folder_ref(folder)
    (folder / "cfg.json").unlink()
    with pytest.raises(TerminalFailure, match=r"InputMissing.*cfg\.json"):
        load_dictionary(ref)


def test_a_file_without_a_recorded_hash_is_not_used(tmp_path):
    ref = folder_ref(saelens_folder(tmp_path / "sae", config("standard"), weights()))
    del ref["files"]["cfg.json"]
    with pytest.raises(TerminalFailure, match=r"no sha256 was recorded for cfg\.json"):
        load_dictionary(ref)


def test_widths_other_than_the_reference_says_are_refused(tmp_path):
    ref = folder_ref(saelens_folder(tmp_path / "sae", config("standard"), weights()))
    with pytest.raises(TerminalFailure, match="DictionaryMismatch"):
        load_dictionary({**ref, "d_sae": D_SAE + 1})


def gemma_scope_arrays() -> dict[str, np.ndarray]:
    state = weights(threshold=normal(D_SAE, seed=3).abs())
    return {name: tensor.numpy() for name, tensor in state.items()}


def npz_ref(path: Path) -> dict[str, object]:
    return {
        "format": "gemma-scope-npz",
        "source": {"kind": "file", "path": str(path)},
        "files": {path.name: file_sha256(path)},
        "d_in": D_IN,
        "d_sae": D_SAE,
    }


def check_gemma_scope(dictionary) -> None:
    """The encoder as Gemma Scope publishes it: b_dec stays out of the input."""
    arrays = gemma_scope_arrays()
    x = normal(30, D_IN, seed=9).numpy()
    hidden = x @ arrays["W_enc"] + arrays["b_enc"]
    expected = np.maximum(hidden, 0) * (hidden > arrays["threshold"])
    found = encode(dictionary, torch.from_numpy(x), 11, 9)
    np.testing.assert_allclose(found.toarray(), expected, atol=1e-5)
    assert dictionary.architecture == "jumprelu"
    rebuilt = expected @ arrays["W_dec"] + arrays["b_dec"]
    np.testing.assert_allclose(decode(dictionary, found).numpy(), rebuilt, atol=1e-4)


def test_a_gemma_scope_npz_is_read(tmp_path):
    path = tmp_path / "params.npz"
    np.savez(path, **gemma_scope_arrays())
    check_gemma_scope(load_dictionary(npz_ref(path)))


def test_an_npz_with_a_pickle_inside_is_refused_and_nothing_runs(tmp_path):
    class Touch:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "params.npz"
    np.savez(path, **{**gemma_scope_arrays(), "b_dec": np.array([Touch()], dtype=object)})
    with pytest.raises(TerminalFailure, match="UnsupportedDictionary"):
        load_dictionary(npz_ref(path))
    path.write_bytes(pickle.dumps(Touch()))
    with pytest.raises(TerminalFailure, match="UnsupportedDictionary"):
        load_dictionary(npz_ref(path))
    assert not (tmp_path / "ran").exists()


def test_a_gemma_scope_transcoder_is_refused(tmp_path):
    path = tmp_path / "params.npz"
    np.savez(path, **gemma_scope_arrays(), W_skip=np.zeros((D_IN, D_IN)))
    with pytest.raises(TerminalFailure, match="w_skip"):
        load_dictionary(npz_ref(path))


def hub_file(cache: Path, name: str) -> Path:
    path = cache / "models--owner--scope" / "snapshots" / COMMIT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def hub_ref(path: Path, format_: str, **files: str) -> dict[str, object]:
    source = {"kind": "hub", "repo": "owner/scope", "revision": COMMIT, "path": "layer_12/w"}
    ref = {**npz_ref(path), "format": format_, "source": source}
    return {**ref, "files": {**ref["files"], **files}}


def test_hub_files_come_from_the_recorded_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    path = hub_file(tmp_path, "layer_12/w/params.npz")
    np.savez(path, **gemma_scope_arrays())
    check_gemma_scope(load_dictionary(hub_ref(path, "gemma-scope-npz")))


def test_gemma_scope_2_keeps_its_arrays_in_safetensors(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    path = hub_file(tmp_path, "layer_12/w/params.safetensors")
    arrays = gemma_scope_arrays().items()
    save_file({name.lower(): torch.from_numpy(array) for name, array in arrays}, path)
    assert "w_enc" in load_file(path)
    check_gemma_scope(load_dictionary(hub_ref(path, "gemma-scope-safetensors")))


def test_a_hub_file_other_than_recorded_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    path = hub_file(tmp_path, "layer_12/w/params.npz")
    np.savez(path, **gemma_scope_arrays())
    with pytest.raises(TerminalFailure, match="InputChanged"):
        load_dictionary(hub_ref(path, "gemma-scope-npz", **{"params.npz": "0" * 64}))


def test_an_unreachable_hub_is_worth_another_try(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    ref = hub_ref(Path(__file__), "gemma-scope-npz")
    with pytest.raises(TransientFailure, match="HubUnreachable"):
        load_dictionary({**ref, "files": {"params.npz": "0" * 64}})


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(TerminalFailure, match="format 'pickle'"):
        load_dictionary({"format": "pickle", "files": {}})
