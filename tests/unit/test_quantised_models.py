"""Quantised weights: an identity of their own, refused by name where nothing computes with them.

What bitsandbytes computes is compared in ``tests/quantised``, which ``make test-quantised`` runs.
"""

import json
import shutil
from dataclasses import replace

import pytest

from loopscope.inputs.errors import InputRefused
from loopscope.inputs.models import describe_model
from loopscope.reports.page.story import doubts
from loopscope.specs.canonical import digest
from loopscope.specs.keys import Key
from loopscope.specs.sources import NO_DTYPES, Model
from loopscope.state.failures import TerminalFailure
from loopscope.views.experiment import ExperimentView
from loopscope.views.quantisation import Quantisation
from loopscope.worker.models import load_model
from loopscope.worker.quantised import ON_A_GPU_ALONE, PACKAGES, check_quantisation
from tests import fake_stages
from tests.simulated import Simulation, experiment_spec
from tests.tiny_models import folder_reference
from tests.unit.reports_case import build

REF = {"name": "tiny/model", "dtype": "float32", "identity": "x"}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.fixture
def refusal(tmp_path):
    def refusal(given, device, *, installed=False):
        (tmp_path / "config.json").write_text(json.dumps({"quantization_config": given}))
        with pytest.raises(TerminalFailure) as failure:
            check_quantisation(tmp_path, REF, device, lambda _: installed)
        assert failure.value.reason == "UnsupportedModel"
        return failure.value.message

    return refusal


@pytest.mark.parametrize("method", PACKAGES)
def test_without_a_gpu_or_the_package_a_quantised_model_is_refused_by_name(refusal, method):
    given = {"quant_method": method, "bits": 4}
    assert f"tiny/model was published quantised ({method} 4 bits)" in refusal(given, "cpu")
    if method in ON_A_GPU_ALONE:
        assert "on a GPU alone" in refusal(given, "cpu", installed=True)
    assert f"needs the package {PACKAGES[method]}" in refusal(given, "cuda:0")


def test_the_kind_of_quantisation_is_named(refusal):
    assert "(bitsandbytes nf4)" in refusal(NF4, "cpu")
    assert "(bitsandbytes int8)" in refusal({**NF4, "load_in_8bit": True}, "cpu")


def test_what_can_be_computed_with_is_left_to_transformers(tmp_path):
    for content in ({"quantization_config": NF4}, {}, {"quantization_config": {"quant_method": 1}}):
        (tmp_path / "config.json").write_text(json.dumps(content))
        check_quantisation(tmp_path, REF, "cuda:0", lambda _: True)


def test_a_model_is_refused_before_its_weights_are_loaded(rope_model_folder, tmp_path):
    folder = shutil.copytree(rope_model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": NF4}))
    (folder / "model.safetensors").write_bytes(b"not looked at")
    with pytest.raises(TerminalFailure, match="published quantised") as failure:
        load_model(folder_reference(folder), tmp_path / "cache", "cpu", lambda *_: None)
    assert failure.value.reason == "UnsupportedModel"


@pytest.mark.parametrize("dtype", sorted(NO_DTYPES))
def test_a_precision_that_would_quantise_is_refused_with_what_to_do(dtype):
    with pytest.raises(ValueError, match=f"there is no {dtype}: .* quantised: nf4 beside it"):
        Model.model_validate({"name": "gpt2", "dtype": dtype})


def test_what_a_spec_asks_for_needs_the_package_and_says_how_to_install_it(tmp_path):
    asked = {**REF, "quantised": "nf4"}
    with pytest.raises(TerminalFailure, match=r"pip install 'loopscope\[quantised\]'") as failure:
        check_quantisation(tmp_path, asked, "cpu", lambda _: False)
    assert "nf4 needs the package bitsandbytes" in failure.value.message
    check_quantisation(tmp_path, asked, "cpu", lambda _: True)


# -- identity ------------------------------------------------------------------------------


def test_how_weights_are_quantised_is_part_of_the_identity_and_the_plain_one_stays(
    rope_model_folder,
):
    def described(**more):
        return describe_model(
            {"name": "tiny", "source": {"folder": str(rope_model_folder)}, **more}
        )

    plain, int8, nf4 = described(), described(quantised="int8"), described(quantised="nf4")
    assert len({one.ref["identity"] for one in (plain, int8, nf4)}) == 3
    assert int8.ref["unquantised"] == nf4.ref["unquantised"] == plain.ref["identity"]
    assert (plain.quantised, nf4.quantised) == (None, "nf4 while it is loaded")
    assert "quantised" not in plain.ref and "unquantised" not in plain.ref


def test_a_model_that_was_published_quantised_is_not_quantised_again(rope_model_folder, tmp_path):
    folder = shutil.copytree(rope_model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": NF4}))
    with pytest.raises(InputRefused, match="published quantised; leave quantised out"):
        describe_model({"name": "x", "source": {"folder": str(folder)}, "quantised": "int8"})


# -- what it did to the dictionaries -------------------------------------------------------


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A world with a model, and the same in four bits, on which dictionaries fit less well."""
    run, fvu = dict(fake_stages._RUN), {}

    def capture(payload, upstream):
        files, metrics = run["capture"](payload, upstream)
        fvu[files["residual.safetensors"]] = 0.35 if "quantised" in payload["model"] else 0.3
        return files, metrics

    def decomposition(payload, upstream):
        files, metrics = run["decomposition"](payload, upstream)
        seen = upstream("capture", payload["capture"]["digest"], "residual.safetensors")
        return files, {**metrics, "text_fvu": fvu[seen]}

    monkeypatch.setitem(fake_stages._RUN, "capture", capture)
    monkeypatch.setitem(fake_stages._RUN, "decomposition", decomposition)
    simulation = Simulation(tmp_path / "state")
    ref = {"identity": "q", "quantised": "nf4", "unquantised": digest("tiny")}
    facts = {"ref": ref, "d_model": fake_stages.D_MODEL, "n_layers": 4}
    simulation.inputs.answers["tiny-nf4"] = {"facts": facts}
    return simulation


def settle(world, name, model, **changes):
    world.apply(experiment_spec(model={"name": model}, **changes), name)
    world.settle()


def said(world, name):
    view = ExperimentView.load(world.state, Key("Experiment", "default", name))
    return [one.words for one in view.quantised]


def test_the_change_in_fvu_is_told_where_both_were_measured(world, loopscope):
    settle(world, "small", "tiny-nf4")
    alone = said(world, "small")[0]
    assert alone.endswith("unquantised not measured: apply the same without quantised as well")
    settle(world, "france", "tiny")
    expected = (
        "FVU 0.35 on the calibration text, weights nf4; 0.3 unquantised "
        "(decomposition/france-coarse): +0.05"
    )
    assert said(world, "small")[0] == expected
    assert said(world, "france") == []
    for words in (("experiment", "small"), ("decomposition", "small-coarse")):
        assert expected in loopscope("describe", *words)[1]


@pytest.mark.parametrize(
    ("model", "changes"), [("tiny", {"hook": "blocks.1.hook_resid_pre"}), ("another", {})]
)
def test_what_was_measured_elsewhere_is_not_compared(world, model, changes):
    settle(world, "small", "tiny-nf4")
    settle(world, "france", model, **changes)
    assert "unquantised not measured" in said(world, "small")[0]


def test_the_report_says_it_among_its_doubts(tmp_path):
    view = ExperimentView.load(*build(tmp_path))
    one = Quantisation(Key("Decomposition", "default", "france-coarse"), "int8", 0.3, None)
    assert f"france-coarse: {one.words}." in doubts(replace(view, quantised=(one,)))
