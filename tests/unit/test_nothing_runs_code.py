"""Nothing is unpickled and no code of a model or dictionary runs, wherever it is planted."""

import ast
import hashlib
import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.models import describe_model
from loopscope.state.failures import Failure
from tests.tiny_models import folder_reference
from tests.tree import EVERYWHERE, ROOT

UNPICKLING = {"torch.load", "pickle.load", "pickle.loads", "numpy.load", "np.load",
              "pandas.read_pickle", "joblib.load", "yaml.load", "yaml.unsafe_load",
              "yaml.full_load", "eval", "exec"}  # fmt: skip


def calls():
    for package in EVERYWHERE:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield path.relative_to(ROOT).as_posix(), node


def test_the_only_readers_that_could_unpickle_are_told_not_to_or_sealed():
    found = [(path, node) for path, node in calls() if ast.unparse(node.func) in UNPICKLING]
    assert [path for path, _ in found] == [
        "inputs/thresholds.py", "worker/dictionaries.py", "worker/sealed/child.py",
    ]  # fmt: skip
    *plain, sealed = (
        {option.arg: ast.unparse(option.value) for option in node.keywords} for _, node in found
    )
    assert all(options["allow_pickle"] == "False" for options in plain)
    assert sealed["weights_only"] == "True"


def test_the_module_that_unpickles_is_run_as_a_process_and_called_by_nobody():
    runs = {"main", "tensors_of", "checked_stream", "write_safetensors"}
    found = {
        path for path, node in calls()
        if ast.unparse(node.func).removeprefix("child.") in runs and "sealed" in path
    }  # fmt: skip
    assert found == {"worker/sealed/child.py"}


def test_every_load_from_a_hub_library_says_no_to_code():
    loads = ("from_pretrained", "boot_transformers")
    found = [node for _, node in calls() if ast.unparse(node.func).endswith(loads)]
    assert len(found) >= 6
    for node in found:
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        assert options.get("trust_remote_code") == "False", ast.unparse(node)


class Planted:
    """Touches a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "it-ran"


@pytest.fixture
def planted(mark):
    data = pickle.dumps(Planted(mark))
    pickle.loads(data)  # the trap works
    mark.unlink()
    return data


def zipped(name, data):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def object_array(mark):
    stream = io.BytesIO()
    np.save(stream, np.array([Planted(mark)], dtype=object), allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    "name",
    ["sae.pt", "sae_weights.pt", "ae.pt", "params.npz", "sae_weights.safetensors", "cfg.json",
     "params.safetensors", "config.json"],
)  # fmt: skip
@pytest.mark.parametrize("form", ["pickle", "torch zip", "npz"])
def test_a_pickle_in_the_place_of_a_dictionary_is_refused_by_both_worlds(
    tmp_path, mark, planted, name, form
):
    from loopscope.worker.dictionaries import load_dictionary

    content = {
        "pickle": planted,
        "torch zip": zipped("archive/data.pkl", planted),
        "npz": zipped("w_enc.npy", object_array(mark)),
    }[form]
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / name).write_bytes(content)
    for path in (tmp_path / "sae", tmp_path / "sae" / name):
        with pytest.raises(InputRefused):
            describe_dictionary({"path": str(path)})
    sha256 = hashlib.sha256(content).hexdigest()
    for format_ in ("saelens", "gemma-scope-npz", "gemma-scope-safetensors"):
        source = {"kind": "folder", "path": str(tmp_path / "sae")}
        reference = {"format": format_, "identity": "x", "source": source, "files": {name: sha256}}
        with pytest.raises(Failure):
            load_dictionary({**reference, "d_in": 1, "d_sae": 1})
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "training_args.bin", "adapter_model.bin", "optimizer.pt",
     "tokenizer.pkl"],
)  # fmt: skip
def test_a_pickle_beside_the_weights_of_a_model_is_not_read(
    rope_model_folder, tmp_path, mark, planted, name
):
    from loopscope.worker.models import load_model

    folder = shutil.copytree(rope_model_folder, tmp_path / "model")
    (folder / name).write_bytes(planted)
    load_model(folder_reference(folder), tmp_path, "cpu", lambda *progress: None)
    assert not mark.exists()


def test_sharded_weights_that_name_a_pickle_are_refused_by_both_worlds(
    rope_model_folder, tmp_path, mark, planted
):
    from loopscope.worker.model_sources import local_model_folder

    folder = shutil.copytree(rope_model_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(planted)
    index = {"metadata": {}, "weight_map": {"a": "pytorch_model.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputRefused, match="might be unpickled"):
        describe_model({"name": "m", "source": {"folder": str(folder)}})
    with pytest.raises(Failure, match="UnsafeWeights"):
        local_model_folder(folder_reference(folder), tmp_path, lambda *progress: None)
    assert not mark.exists()


@pytest.mark.parametrize("config", ["config.json", "tokenizer_config.json"])
def test_code_that_a_model_or_tokenizer_brings_is_refused_unasked(
    rope_model_folder, tmp_path, mark, monkeypatch, config
):
    from loopscope.worker.models import load_model

    def asked(*_):
        raise AssertionError("standard input was asked whether to run the code")

    monkeypatch.setattr("builtins.input", asked)
    folder = shutil.copytree(rope_model_folder, tmp_path / "model")
    told = json.loads((folder / config).read_text())
    evil = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    told |= {"auto_map": {**evil, "AutoTokenizer": ["evil.T", "evil.T"]}, "model_type": "evil"}
    if config == "tokenizer_config.json":
        told["tokenizer_class"] = "EvilTokenizer"
    (folder / config).write_text(json.dumps(told))
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    with pytest.raises(InputRefused, match="auto_map"):
        describe_model({"name": "m", "source": {"folder": str(folder)}})
    with pytest.raises(Failure, match="auto_map"):
        load_model(folder_reference(folder), tmp_path, "cpu", lambda *progress: None)
    assert not mark.exists()
