"""The front door for tests: run a command, write a small experiment for it."""

import json

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from loopscope import cli
from tests.fake_stages import D_MODEL
from tests.simulated import Simulation, capture_spec, settled_experiment

HOOK = "blocks.1.hook_resid_post"
PLACES = {
    "target": ["Paris", "Lyon", "Lille", "Nantes", "Toulouse"],
    "neutral": ["Rome", "Oslo", "Bern", "Turin", "Porto"],
}


@pytest.fixture
def loopscope(tmp_path, monkeypatch, capsys):
    """Run a command on ``tmp_path/state``; return exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOOPSCOPE_STATE", raising=False)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["loopscope", "--state", "state", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return ended.value.code or 0, told.out, told.err

    return run


@pytest.fixture
def experiment(tmp_path):
    """Write a spec with its model and dictionaries; return a function that edits it."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(f'{{"hidden_size": {D_MODEL}, "num_hidden_layers": 2}}')
    (model / "tokenizer.json").write_text("{}")
    save_file({"w": np.zeros(2, np.float32)}, model / "model.safetensors")
    for name, d_in, d_sae in (("coarse", D_MODEL, 8), ("fine", D_MODEL, 16), ("wide", 12, 16)):
        write_dictionary(tmp_path / name, d_in, d_sae)
    for name, places in PLACES.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{place} is\n" for place in places))
    path = tmp_path / "specs" / "x.yaml"
    path.parent.mkdir()

    def write(edit=lambda spec: None, text=lambda text: text):
        document = {
            "apiVersion": "loopscope.dev/v1alpha1",
            "kind": "Experiment",
            "metadata": {"name": "x"},
            "spec": {
                "model": {"name": "tiny", "source": {"folder": "../model"}},
                "hook": HOOK,
                "prompts": {name: {"file": f"../{name}.txt"} for name in PLACES},
                "dictionaries": {"coarse": {"path": "../coarse"}, "fine": {"path": "../fine"}},
            },
        }
        edit(document["spec"])
        path.write_text(text(yaml.safe_dump(document, sort_keys=False)))
        return path

    return write


def write_dictionary(folder, d_in, d_sae):
    folder.mkdir()
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    save_file(weights, folder / "sae_weights.safetensors")
    cfg = {"architecture": "standard", "d_in": d_in, "d_sae": d_sae}
    (folder / "cfg.json").write_text(json.dumps({**cfg, "metadata": {"hook_name": HOOK}}))


@pytest.fixture
def settled(tmp_path):
    """A settled experiment named france."""
    return settled_experiment(tmp_path / "state")


@pytest.fixture
def capture(tmp_path):
    """A lone capture that was applied but not looked at."""
    simulation = Simulation(tmp_path / "state")
    simulation.apply(capture_spec(), "cap", "Capture")
    return simulation
