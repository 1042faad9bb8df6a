"""A vector that was exported does elsewhere what it did here."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors import safe_open

from loopscope.commands.results import vectors
from loopscope.context import CommandError
from loopscope.state.failures import TerminalFailure
from loopscope.worker.vector_export import written
from tests.stage_world import HOOK, OPENINGS, steering_payload
from tests.vector_page import code_of_the_page

MODEL = {
    "name": "tiny", "identity": "of the model", "dtype": "float32", "files": {"b": "2", "a": "1"},
    "source": {"kind": "hub", "repo": "made/up", "revision": "c0ffee"},
}  # fmt: skip
MEASURED = {"strength": {"strength": 0.5, "norm": 40.0}, "effect": {"difference": 0.25}}


def side(name):
    dictionary = {"identity": name, "architecture": "standard", "files": {"x": name}}
    return {"digest": f"d{name[0]}", "dictionary": dictionary}


@pytest.fixture
def export(steering_world, tmp_path):
    def export(name="vector.safetensors", layout="safetensors", arm="multi", **changes):
        work = steering_payload(
            model=MODEL, coarse=side("coarse"), fine=side("fine"),
            openings=[{"id": "o0", "text": OPENINGS[0]}], maxNewTokens=12, **changes,
        )  # fmt: skip
        path = tmp_path / name
        request = {
            "work": work, "artifacts": {}, "measured": {"arm": arm, **MEASURED},
            "format": layout, "path": str(path), "device": "cpu",
        }  # fmt: skip
        written(request, steering_world.context("export"))
        return path

    return export


def metadata(path):
    with safe_open(path, "pt") as file:
        found = file.metadata()
        return tuple(json.loads(found[f"loopscope.{name}"]) for name in ("passport", "self_test"))


def test_plain_code_steers_with_it_token_by_token_as_the_experiment_does(steering_world, export):
    page = code_of_the_page()
    vector, passport, test = page.open_vector(export())
    assert vector.shape == (steering_world.model.d_model,)
    assert float(vector.norm()) == pytest.approx(40.0, rel=1e-6)
    model = steering_world.model.hf_model
    before = page.next_logits(model, test["tokens"])
    assert torch.allclose(
        before[test["unsteered"]["tokens"]], torch.tensor(test["unsteered"]["logits"]), atol=1e-4
    )
    assert page.greedy(model, test) == test["unsteered_greedy"]
    handle = page.add_behind(model, vector, passport)
    page.check(model, test)
    assert page.greedy(model, test) == test["greedy"]
    generated = model.generate(
        input_ids=torch.tensor([test["tokens"]]), do_sample=False, max_new_tokens=12,
        suppress_tokens=None, eos_token_id=[],
    )  # fmt: skip
    handle.remove()
    assert generated[0, len(test["tokens"]) :].tolist()[: len(test["greedy"])] == test["greedy"]
    assert test["greedy"] != test["unsteered_greedy"], "the vector does something"
    assert test["expected"] != test["everywhere"], "BOS is not steered"


def test_a_self_test_refuses_the_wrong_place_sign_and_length(steering_world, export):
    page = code_of_the_page()
    vector, passport, test = page.open_vector(export())
    model = steering_world.model.hf_model
    elsewhere = {**passport["place"], "module": passport["place"]["module"].replace(".1", ".0")}
    for wrong, place in ((-vector, None), (1.1 * vector, None), (vector, elsewhere)):
        handle = page.add_behind(model, wrong, {"place": place or passport["place"]})
        with pytest.raises(AssertionError, match="logits differ"):
            page.check(model, test)
        handle.remove()


def test_before_a_block_it_is_added_to_what_the_block_reads(steering_world, export):
    path = export("before.safetensors", hook="blocks.2.hook_resid_pre")
    passport, test = metadata(path)
    assert (passport["place"]["side"], passport["place"]["block"]) == ("input", 2)
    with safe_open(path, "pt") as file:
        vector = file.get_tensor("vector")
    page, model = code_of_the_page(), steering_world.model.hf_model
    block = model.get_submodule(passport["place"]["module"])

    def add(_module, inputs, named):
        hidden = (inputs[0] if inputs else named["hidden_states"]).clone()
        hidden[:, 1:] += vector
        return (
            ((hidden, *inputs[1:]), named) if inputs else ((), {**named, "hidden_states": hidden})
        )

    handle = block.register_forward_pre_hook(add, with_kwargs=True)
    page.check(model, test)
    handle.remove()


def test_the_passport_says_what_it_is_made_of_and_where_it_acts(export):
    passport, test = metadata(export(arm="fine", positions="generated"))
    assert passport["model"] == {
        "name": "tiny", "source": "made/up@c0ffee", "identity": "of the model", "dtype": "float32",
        "quantised": None, "files": {"a": "1", "b": "2"},
    }  # fmt: skip
    assert (passport["coarse"]["latents"], passport["fine"]["latents"]) == ([], [1])
    assert passport["fine"]["identity"] == "fine"
    assert passport["place"]["hook"] == HOOK
    assert passport["place"]["rule"] == (
        "added at the last token of the text, and every token that is generated"
    )
    assert passport["effect"] == MEASURED["effect"]
    assert test["steered"] == [len(test["tokens"]) - 1] and test["steers_generated"]
    assert test["text"] == OPENINGS[0]
    logits = test["expected"]["logits"]
    assert logits == sorted(logits, reverse=True) and len(logits) == 10


@pytest.mark.parametrize("layout", ["gguf", "repeng"])
def test_a_control_vector_is_laid_out_as_llama_cpp_and_repeng_read_it(export, layout):
    reader = GGUFReader(export("vector.gguf", layout))

    def text(name):
        return bytes(reader.get_field(name).parts[-1]).decode()

    assert text("general.architecture") == "controlvector"
    assert text("controlvector.model_hint") in ("gemma2", "gpt2")
    (direction,) = reader.tensors
    assert direction.name == "direction.1" and direction.tensor_type.name == "F32"
    assert direction.data.shape == (32,)
    plain = export()
    with safe_open(plain, "np") as file:
        assert np.array_equal(direction.data, file.get_tensor("vector"))
    passport, test = metadata(plain)
    assert json.loads(text("loopscope.passport")) == passport
    assert json.loads(text("loopscope.self_test")) == test


@pytest.mark.parametrize("layout", ["safetensors", "gguf"])
def test_the_same_vector_is_the_same_bytes(export, layout):
    first, second = (export(name, layout).read_bytes() for name in ("first", "second"))
    assert first == second


def test_the_output_of_the_block_before_is_what_a_block_reads(export):
    reader = GGUFReader(export("before.gguf", "gguf", hook="blocks.2.hook_resid_pre"))
    assert [tensor.name for tensor in reader.tensors] == ["direction.1"]


@pytest.mark.parametrize(
    ("layout", "hook", "why"),
    [
        ("gguf", "blocks.0.hook_resid_post", "it refuses direction.0"),
        ("repeng", "blocks.0.hook_resid_pre", "added behind a block"),
        ("gguf", "blocks.1.hook_mlp_out", "added behind a block"),
    ],
)
def test_a_place_that_a_layout_does_not_know_is_refused(export, tmp_path, layout, hook, why):
    with pytest.raises(TerminalFailure, match=why):
        export("refused.gguf", layout, hook=hook)
    assert not (tmp_path / "refused.gguf").exists()


def test_repeng_also_wraps_the_first_block(export):
    reader = GGUFReader(export("first.gguf", "repeng", hook="blocks.0.hook_resid_post"))
    assert [tensor.name for tensor in reader.tensors] == ["direction.0"]


def test_an_arm_that_clamps_is_no_vector_but_one_that_is_made_of_no_latents_is(export):
    with pytest.raises(TerminalFailure, match="the arm coarse clamps"):
        export(arm="coarse", method="clamp")
    passport, _ = metadata(export(arm="random-0", method="clamp"))
    assert passport["coarse"]["latents"] == passport["fine"]["latents"] == []


def test_a_hook_within_a_block_travels_under_its_own_name(export):
    passport, _ = metadata(export(hook="blocks.1.hook_mlp_out"))
    assert passport["place"]["module"] is None
    assert passport["place"]["hook"] == "blocks.1.hook_mlp_out"


def test_a_file_that_came_while_the_vector_was_made_is_left_alone(tmp_path, monkeypatch):
    file = tmp_path / "mine"

    def made_meanwhile(_command, **told):
        file.write_text("mine")
        Path(json.loads(told["input"])["path"]).write_text("a vector")
        return subprocess.CompletedProcess([], 0, "{}", "")

    monkeypatch.setattr(vectors.subprocess, "run", made_meanwhile)
    with pytest.raises(CommandError, match="exists; name a new file"):
        vectors._write(file, {})
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and file.read_text() == "mine"
