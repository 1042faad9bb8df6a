import io
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from loopscope.controller.apply.admission import (
    check_capture_inputs,
    check_decomposition_inputs,
    check_experiment_inputs,
    check_fit,
    check_inputs,
)
from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.files import HashMemo
from loopscope.inputs.models import describe_model
from tests.simulated import experiment_spec

D_MODEL = 8
HOOK = "blocks.1.hook_resid_post"
RELEASE = "gemma-scope-2b-pt-res-canonical"


@pytest.fixture
def memo(tmp_path):
    return HashMemo(tmp_path / "hashes.json")


def write(folder: Path, files: dict[str, bytes]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return str(folder)


def tensors(d_in: int, d_sae: int) -> dict[str, np.ndarray]:
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    return {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}


def dictionary(folder: Path, d_in: int = D_MODEL, d_sae: int = 16, hook: str = HOOK) -> dict:
    cfg = {
        "architecture": "standard",
        "d_in": d_in,
        "d_sae": d_sae,
        "metadata": {"hook_name": hook},
    }
    files = {"cfg.json": json.dumps(cfg).encode(),
             "sae_weights.safetensors": save(tensors(d_in, d_sae))}  # fmt: skip
    return {"path": write(folder, files)}


@pytest.fixture
def spec(tmp_path):
    config = {"hidden_size": D_MODEL, "num_hidden_layers": 2}
    files = {"config.json": json.dumps(config).encode(), "tokenizer.json": b"{}",
             "model.safetensors": save({"w": np.zeros(2, dtype=np.float32)})}  # fmt: skip
    return {
        "model": {
            "name": "tiny/model",
            "source": {"folder": write(tmp_path / "model", files)},
            "dtype": "float32",
        },
        "hook": HOOK,
        "dictionaries": {
            "coarse": dictionary(tmp_path / "coarse"),
            "fine": dictionary(tmp_path / "fine", d_sae=32),
        },
    }


def test_inputs_that_fit_together_are_admitted_twice(spec, memo):
    assert check_experiment_inputs(spec, memo) == []
    assert check_experiment_inputs(spec, memo) == []
    prompts = {"prompts": experiment_spec()["prompts"], "selection": {"maxQ": 1.0}}
    assert check_inputs("Experiment", {**spec, **prompts}, memo) == []
    tested = {**spec, **prompts, "selection": {"maxQ": 0.05}}
    fields = [field for field, _ in check_inputs("Experiment", tested, memo)]
    assert fields == ["spec.prompts.target", "spec.prompts.neutral"]
    assert check_inputs("Mapping", {}, memo) == []


def only(problems: list[tuple[str, str]]) -> tuple[str, str]:
    assert len(problems) == 1, problems
    return problems[0]


def test_a_hook_beyond_the_last_layer_is_refused(spec, memo):
    spec["hook"] = "blocks.2.hook_resid_post"
    problems = dict(check_experiment_inputs(spec, memo))
    assert "2 layers" in problems["spec.hook"] and "blocks.1" in problems["spec.hook"]
    assert only(check_capture_inputs(spec, memo))[0] == "spec.hook"
    assert only(check_capture_inputs(spec))[0] == "spec.hook", "a memo is not needed"


def test_a_dictionary_of_another_width_is_refused(spec, memo, tmp_path):
    spec["dictionaries"]["fine"] = dictionary(tmp_path / "wide", d_in=12, d_sae=32)
    field, message = only(check_experiment_inputs(spec, memo))
    assert field == "spec.dictionaries.fine.path"
    assert "width 12" in message and "width 8" in message


def test_a_dictionary_is_compared_with_the_width_of_its_place(spec, memo, tmp_path):
    hook = "blocks.1.mlp.hook_post"
    of_mlp = dictionary(tmp_path / "mlp", d_in=20, d_sae=32, hook=hook)
    spec |= {"hook": hook, "dictionaries": {"coarse": of_mlp, "fine": of_mlp}}
    assert check_experiment_inputs(spec, memo) == [], "the config does not tell the MLP's width"
    config = {"hidden_size": D_MODEL, "num_hidden_layers": 2, "intermediate_size": 24}
    write(tmp_path / "model", {"config.json": json.dumps(config).encode()})
    (_, message), _ = check_experiment_inputs(spec, HashMemo(tmp_path / "again.json"))
    assert "reads vectors of width 20" in message and f"width 24 at {hook}" in message


def test_parallel_blocks_have_nothing_between_attention_and_mlp(spec, memo, tmp_path):
    spec["hook"] = "blocks.1.hook_resid_mid"
    config = {"hidden_size": D_MODEL, "num_hidden_layers": 2, "model_type": "gpt_neox"}
    write(tmp_path / "model", {"config.json": json.dumps(config).encode()})
    field, message = only(check_capture_inputs(spec, memo))
    assert field == "spec.hook" and "read the same stream" in message
    config["use_parallel_residual"] = False
    write(tmp_path / "model", {"config.json": json.dumps(config).encode()})
    assert check_capture_inputs(spec, HashMemo(tmp_path / "again.json")) == []


def test_a_dictionary_of_another_hook_is_refused_with_the_hook_to_write(spec, memo, tmp_path):
    other = "blocks.0.hook_resid_pre"
    spec["dictionaries"]["coarse"] = dictionary(tmp_path / "other", hook=other)
    field, message = only(check_experiment_inputs(spec, memo))
    assert field == "spec.dictionaries.coarse.path"
    assert f"write hook: {other}" in message and HOOK in message


def test_a_dictionary_that_does_not_tell_its_hook_is_admitted(spec, memo, tmp_path):
    stream = io.BytesIO()
    named = {name.lower(): tensor for name, tensor in tensors(D_MODEL, 64).items()}
    np.savez(stream, threshold=np.zeros(64, dtype=np.float32), **named)
    path = write(tmp_path / "scope", {"params.npz": stream.getvalue()})
    spec["dictionaries"]["fine"] = {"path": f"{path}/params.npz"}
    assert check_experiment_inputs(spec, memo) == []


def test_a_wrong_sha256_and_a_missing_file_are_each_named(spec, memo, tmp_path):
    spec["dictionaries"]["coarse"]["sha256"] = "0" * 64
    spec["dictionaries"]["fine"]["path"] = str(tmp_path / "nowhere")
    problems = dict(check_experiment_inputs(spec, memo))
    assert problems.keys() == {"spec.dictionaries.coarse.sha256", "spec.dictionaries.fine.path"}
    assert "0" * 64 in problems["spec.dictionaries.coarse.sha256"]


def test_a_missing_model_is_named_and_the_dictionaries_are_still_checked(spec, memo, tmp_path):
    spec["model"]["source"] = {"gguf": str(tmp_path / "none.gguf")}
    spec["dictionaries"]["fine"]["path"] = str(tmp_path / "nowhere")
    fields = [field for field, _ in check_experiment_inputs(spec, memo)]
    assert fields == ["spec.model.source.gguf", "spec.dictionaries.fine.path"]


def test_exchanged_dictionaries_are_noticed(spec, memo):
    both = spec["dictionaries"]
    both["coarse"], both["fine"] = both["fine"], both["coarse"]
    field, message = only(check_experiment_inputs(spec, memo))
    assert field == "spec.dictionaries" and "exchange" in message


def test_what_needs_a_hub_is_admitted_as_far_as_the_registry_tells(spec, memo):
    spec["model"] = {"name": "google/gemma-2-2b", "dtype": "float32"}
    spec["hook"] = "blocks.12.hook_resid_post"
    spec["dictionaries"] = {
        "coarse": {"release": RELEASE, "id": "layer_12/width_16k/canonical"},
        "fine": {"release": RELEASE, "id": "layer_12/width_262k/canonical"},
    }
    assert check_experiment_inputs(spec, memo) == []
    spec["dictionaries"]["fine"]["id"] = "layer_12/width_261k/canonical"
    assert only(check_experiment_inputs(spec, memo))[0] == "spec.dictionaries.fine.id"
    spec["dictionaries"]["fine"]["id"] = "layer_11/width_16k/canonical"
    field, message = only(check_experiment_inputs(spec, memo))
    assert field == "spec.dictionaries.fine.release" and "blocks.11" in message


def test_a_decomposition_is_checked_alone_and_against_its_capture_later(spec, memo, tmp_path):
    narrow = {"dictionary": dictionary(tmp_path / "narrow", d_in=4)}
    assert check_decomposition_inputs(narrow, memo) == []
    facts = describe_dictionary(narrow["dictionary"], memo=memo)
    model = describe_model(spec["model"], memo=memo)
    problems = check_fit("spec.dictionary", narrow["dictionary"], facts, HOOK, spec["model"], model)
    assert only(problems)[0] == "spec.dictionary.path"
    assert check_decomposition_inputs(narrow) == [], "a memo is not needed"
    gone = {"dictionary": {"path": str(tmp_path / "nowhere")}}
    assert only(check_decomposition_inputs(gone, memo))[0] == "spec.dictionary.path"


def test_the_cells_of_a_sweep_are_checked_and_what_is_wrong_is_named_where_it_stands(spec, memo):
    hooks = {"l1": {"hook": HOOK}, "l9": {"hook": "blocks.9.hook_resid_post"}}
    chosen = {"prompts": experiment_spec()["prompts"], "selection": {"maxQ": 1.0}}
    swept = {**spec, **chosen, "matrix": {"hook": hooks}}
    for dictionary in swept["dictionaries"].values():
        dictionary["usableAt"] = "any"
    field, message = only(check_inputs("Experiment", swept, memo))
    assert field == "spec.matrix.hook.l9.hook" and "2 layers" in message
    assert check_inputs("Experiment", swept) == [(field, message)], "a memo is not needed"
