"""The planted example, end to end: what was planted is found, and success is called success."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

import loopscope
from tests.command_line import succeeded
from tests.tree import ROOT

pytestmark = pytest.mark.integration
PLANTED = ROOT / "examples" / "planted"
SECONDS_MAX = 900


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The state folder of ``loopscope run examples/planted``, and what its report says."""
    folder = tmp_path_factory.mktemp("planted")
    report = folder / "report.html"
    for words in (("run", PLANTED), ("report", "planted", "-o", report)):
        succeeded("--state", folder / "state", *words, LOOPSCOPE_CACHE=str(folder / "cache"))
    return loopscope.open(folder / "state").experiments["planted"], report.read_text()


def test_the_gate_says_go_and_the_verdict_is_supported(ran):
    experiment, _ = ran
    summary = experiment.status["summary"]
    assert (summary["gate"], summary["verdict"]) == ("GO", "Supported")
    assert summary["low"] > 0.1, "with room to spare, so that no last bit decides it"


def test_the_children_that_were_planted_are_those_that_are_found(ran):
    truth = json.loads((PLANTED / "truth.json").read_text())
    pairs = ran[0].pairs()
    found = pairs[pairs["child"]]
    assert set(found["coarse"]) == {truth["parent"]}
    assert sorted(found["fine"]) == truth["children"]


def test_it_is_called_planted_wherever_it_shows(ran):
    experiment, report = ran
    assert experiment.name == "planted"
    assert "<h1>planted</h1>" in report
    assert "labels: truth=planted" in report
    assert "planted-toy-model" in report


def test_the_script_writes_the_world_that_is_in_the_folder(tmp_path):
    copy = tmp_path / "planted"
    copy.mkdir()
    for script in PLANTED.glob("*.py"):
        (copy / script.name).write_bytes(script.read_bytes())
    subprocess.run([sys.executable, str(copy / "make_world.py")], check=True, timeout=SECONDS_MAX)
    made = {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()}
    for path in sorted(made):
        kept, new = PLANTED / path, copy / path
        if path.suffix == ".safetensors":
            kept_tensors, new_tensors = load_file(kept), load_file(new)
            assert kept_tensors.keys() == new_tensors.keys()
            for name, tensor in kept_tensors.items():
                np.testing.assert_allclose(new_tensors[name], tensor, rtol=2e-3, atol=2e-3)
        elif path.suffix in (".txt", ".py") or path.name in ("truth.json", "cfg.json"):
            assert new.read_text() == kept.read_text(), path


def test_the_edges_of_a_planted_chain_are_those_that_are_found(tmp_path):
    shutil.copytree(PLANTED, tmp_path / "planted")
    spec = yaml.safe_load((ROOT / "examples/resolution/experiment.yaml").read_text())
    del spec["spec"]["steering"]
    (tmp_path / "resolution").mkdir()
    file = tmp_path / "resolution" / "experiment.yaml"
    file.write_text(yaml.safe_dump(spec))
    report, state = tmp_path / "report.html", tmp_path / "state"
    for words in (("run", file, "--root", tmp_path), ("report", "resolution", "-o", report)):
        succeeded("--state", state, *words, LOOPSCOPE_CACHE=str(tmp_path / "cache"))
    truth = json.loads((PLANTED / "truth.json").read_text())
    groups = {int(one): children for one, children in truth["middle"].items()}
    planted = {(truth["parent"], one) for one in groups}
    planted |= {(one, child) for one, children in groups.items() for child in children}
    page = report.read_text()
    found = re.findall(r"<title>(\d+) to (\d+): cosine", page)
    assert {(int(one), int(other)) for one, other in found} == planted
    assert "Resolution: 160 latents → 300 latents → 480 latents" in page
