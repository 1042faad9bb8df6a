"""Small things that people write, and what they are told."""

from dataclasses import replace

import pytest

from loopscope.controller.config import load_config
from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.files import HashMemo
from loopscope.inputs.models import describe_model
from loopscope.inputs.releases import find_release
from loopscope.reports.tables.describe import describe_text
from loopscope.reports.tables.listing import listing
from loopscope.specs.activation_scaling import advice_on
from loopscope.specs.devices import device_name
from loopscope.specs.errors import InvalidSpec
from loopscope.terminal.outcome import how_to_go_on, outcome_line
from loopscope.views.numbers import counted
from tests.simulated import settled_experiment
from tests.unit.reports_case import set_status

# -- devices ------------------------------------------------------------------------------


def test_plain_cuda_is_the_first_card():
    assert device_name("cuda") == "cuda:0" and device_name("cuda:3") == "cuda:3"
    assert device_name("cpu") == "cpu"


@pytest.mark.parametrize("wrong", ["mps", "mps:0", "gpu", "cuda:", "cuda:01", "CPU", ""])
def test_what_is_no_device_is_refused_with_what_is_one(wrong):
    with pytest.raises(ValueError, match="float64" if "mps" in wrong else "cpu, cuda or cuda:N"):
        device_name(wrong)


def test_an_option_and_the_file_know_plain_cuda_too(loopscope, tmp_path):
    for words in (["--device", "mps"], ["--slots", "mps=1"]):
        code, _, error = loopscope("controller", *words)
        assert code == 2 and "float64" in " ".join(error.replace("│", " ").split())
    conf = tmp_path / "x.conf"
    conf.write_text("slots: {cuda: 2, cpu: 1}\nmemory: {cuda: 8GiB}\n")
    said = load_config(conf).settings()
    assert said["slots_by_device"] == {"cuda:0": 2, "cpu": 1}
    assert said["memory_bytes"] == {"cuda:0": 8 * 2**30}
    conf.write_text("slots: {cuda: 2, 'cuda:0': 1}\n")
    with pytest.raises(InvalidSpec, match="the same device"):
        load_config(conf)


# -- dictionaries that SAELens knows under another name -------------------------------------


@pytest.mark.parametrize(
    ("repo", "folder", "release", "sae_id"),
    [
        (
            "google/gemma-scope-2b-pt-res",
            "layer_12/width_16k/average_l0_82",
            "gemma-scope-2b-pt-res",
            "layer_12/width_16k/average_l0_82",
        ),
        (
            "google/gemma-scope-2-270m-pt",
            "resid_post/layer_9_width_16k_l0_medium",
            "gemma-scope-2-270m-pt-res",
            "layer_9_width_16k_l0_medium",
        ),
    ],
)
def test_a_hub_name_that_is_known_as_a_release_is_refused_with_it(repo, folder, release, sae_id):
    with pytest.raises(InputRefused) as refused:
        find_release(repo, folder)
    assert f"write release: {release}, id: {sae_id}" in refused.value.message
    assert find_release(release, sae_id).path == folder
    with pytest.raises(InputRefused, match=f"as release .*{release}"):
        find_release(repo, "no-such-folder")


def test_a_hub_name_in_saelens_format_is_read_as_the_release_that_holds_it():
    named = find_release("jbloom/GPT2-Small-SAEs-Reformatted", "blocks.8.hook_resid_pre")
    assert named == find_release("gpt2-small-res-jb", "blocks.8.hook_resid_pre")
    assert find_release("somebody/own", "folder").repo == "somebody/own"


def test_a_hub_name_written_as_a_path_gets_the_hint(tmp_path):
    path = str(tmp_path / "google" / "gemma-scope-2b-pt-res")
    with pytest.raises(InputRefused, match="as release gemma-scope-2b-pt-res"):
        describe_dictionary({"path": path})


# -- scaled activations -------------------------------------------------------------------


def test_the_advice_on_scaled_activations_can_be_followed():
    assert "fold_activation_norm_scaling_factor" in advice_on("expected_average_only_in")
    for name in ("layer_norm", "constant_norm_rescale"):
        assert "cannot be folded" in advice_on(name) and "stored" not in advice_on(name)
    assert "choose" in advice_on("of tomorrow") and "choose" in advice_on(["odd"])


# -- a tokenizer without BOS ----------------------------------------------------------------


def test_a_model_without_bos_is_refused_and_the_way_out_works(tmp_path, one_torch_thread):
    from loopscope.worker.models import load_model
    from tests.tiny_models import save_rope_model

    folder = save_rope_model(tmp_path / "model", with_bos=False)
    model = {"name": "tiny", "source": {"folder": str(folder)}}
    with pytest.raises(InputRefused, match=r"name in model\.bosToken the token"):
        describe_model(model, memo=HashMemo())
    ref = describe_model({**model, "bosToken": "<eos>"}, memo=HashMemo()).ref
    loaded = load_model(ref, tmp_path, "cpu", lambda *_: None)
    tokens = loaded.encode("the river in france")
    assert tokens[0] == loaded.plain_bos == loaded.tokenizer.eos_token_id
    assert tokens.count(loaded.plain_bos) == 1 and len(tokens) == 5


# -- a verdict that is none ---------------------------------------------------------------


def test_not_testable_prints_no_estimate(tmp_path):
    simulation = settled_experiment(tmp_path / "state")
    numbers = {"contrast": "multi-fine", "estimate": 0.1, "low": 0.0, "high": 0.2, "n": 20}
    shown = {}
    for verdict in ("Inconclusive", "NotTestable"):
        for name in ("france", "france-steering"):
            record = simulation.get(name)
            summary = {**numbers, "verdict": verdict, "reason": f"so it is {verdict}"}
            told = replace(record.status, summary=summary)
            set_status(simulation.state, record.key, told)
        table = listing("Steering", [simulation.get("france-steering")], now=0.0)
        full = describe_text(simulation.get("france-steering"), [], [], None, now=0.0)
        summary = full[full.index("  Summary:") : full.index("  Inputs:")]
        shown[verdict] = " ".join(table.rows[0]), outcome_line(simulation.get("france")), summary
    assert all("multi-fine" in text and "0.10" in text for text in shown["Inconclusive"])
    _, last, summary = shown["NotTestable"]
    assert last == "experiment/france is ready: verdict NotTestable (so it is NotTestable)"
    assert "reason:" in summary and "so it is NotTestable" in summary
    for text in shown["NotTestable"]:
        assert "NotTestable" in text and "multi-fine" not in text and "0.10" not in text


# -- one thing, two things ----------------------------------------------------------------


def test_one_thing_is_not_told_as_several():
    assert (counted(1, "finding"), counted(2, "finding")) == ("1 finding", "2 findings")
    assert counted(0, "artifact is", "artifacts are") == "0 artifacts are"


def test_the_way_on_from_a_timeout_has_none(monkeypatch):
    for limit in (["--timeout", "40s"], ["--timeout=40s"], ["--stop-before", "4h"]):
        monkeypatch.setattr("sys.argv", ["loopscope", "run", *limit, "a folder"])
        assert how_to_go_on() == "Go on with: loopscope run 'a folder'"
