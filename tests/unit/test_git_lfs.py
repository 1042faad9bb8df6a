"""What a clone without Git LFS leaves in place of a file is told for what it is, wherever it is."""

import shutil

import pytest

from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.models import describe_model
from tests.tiny_experiment import make_experiment

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d' * 32}\nsize 107\n"
OLD = POINTER.replace("git-lfs.github.com", "hawser.github.com")


def refused(describe, reference):
    with pytest.raises(InputRefused) as refusal:
        describe(reference)
    assert "git lfs pull" in refusal.value.message, refusal.value.message


@pytest.mark.parametrize("pointer", [POINTER, OLD, POINTER.replace("\n", "\r\n")])
@pytest.mark.parametrize(
    "file", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_pointer_in_a_model_folder(rope_model_folder, tmp_path, file, pointer):
    folder = shutil.copytree(rope_model_folder, tmp_path / "model")
    (folder / file).write_bytes(pointer.encode())
    refused(describe_model, {"name": "m", "source": {"folder": str(folder)}})


def test_a_pointer_in_place_of_an_index_of_weights(rope_model_folder, tmp_path):
    folder = shutil.copytree(rope_model_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(POINTER)
    refused(describe_model, {"name": "m", "source": {"folder": str(folder)}})


def test_a_pointer_in_place_of_a_gguf_file(tmp_path):
    (tmp_path / "m.gguf").write_text(POINTER)
    refused(describe_model, {"name": "m", "source": {"gguf": str(tmp_path / "m.gguf")}})


@pytest.mark.parametrize("file", ["cfg.json", "sae_weights.safetensors"])
def test_a_pointer_in_a_saelens_folder(tmp_path, file):
    make_experiment(tmp_path)
    (tmp_path / "coarse" / file).write_text(POINTER)
    refused(describe_dictionary, {"path": str(tmp_path / "coarse")})


@pytest.mark.parametrize("file", ["params.npz", "params.safetensors"])
def test_a_pointer_in_place_of_gemma_scope(tmp_path, file):
    (tmp_path / file).write_text(POINTER)
    refused(describe_dictionary, {"path": str(tmp_path)})
