"""Every field that tells how a dictionary was trained is applied, refused or noted."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from loopscope.controller.apply.admission import check_experiment_inputs, check_fit
from loopscope.inputs import dictionary_training
from loopscope.inputs.dictionaries import describe_dictionary, known_training
from loopscope.inputs.dictionary_training import read_training
from loopscope.inputs.errors import InputRefused
from loopscope.specs.model_names import another_model

HOOK = "blocks.3.hook_resid_post"
GEMMA = {"name": "google/gemma-3-270m"}


@pytest.mark.parametrize(
    ("said", "hook"),
    [
        ({"hook_name": HOOK}, HOOK),
        ({"hook_point": "blocks.0.hook_resid_pre"}, "blocks.0.hook_resid_pre"),
        ({"hf_hook_point_in": "model.layers.3.output"}, HOOK),
        ({"hf_hook_point_in": "model.layers.3.input"}, "blocks.3.hook_resid_pre"),
        ({"hook_name": "model.language_model.layers.3"}, HOOK),
        ({"hook_name": "blocks.3.attn.hook_z"}, "blocks.3.attn.hook_z"),
        ({"hf_hook_point_in": "model.layers.3.self_attn.o_proj.input"}, "blocks.3.attn.hook_z"),
        (
            {"hf_hook_point_in": "model.layers.3.post_feedforward_layernorm.output"},
            "blocks.3.hook_mlp_out",
        ),
        (
            {"hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output"},
            "blocks.3.mlp.hook_in",
        ),
        ({"hook_name": HOOK, "hf_hook_name": "model.layers.3.output"}, HOOK),
        ({"hook_name": HOOK, "hook_name_out": HOOK, "affine_connection": False}, HOOK),
        ({"hook_head_index": None}, None),
    ],
)  # fmt: skip
def test_a_hook_is_read_under_every_name_that_it_has(said, hook):
    assert read_training(said).hook_name == hook


@pytest.mark.parametrize(
    "said",
    [
        {"hook_name": "blocks.3.attn.hook_q"},
        {"hook_name": 3},
        {"hf_hook_point_in": "model.layers.3.self_attn.q_proj.input"},
        {"hook_name": HOOK, "hook_head_index": 0},
        {"hook_name": HOOK, "affine_connection": True},
        {"hook_name": HOOK, "hook_name_out": "blocks.3.hook_mlp_out"},
        {"hook_name": HOOK, "hook_name_out": "blocks.4.hook_resid_post"},
        {"hook_name": HOOK, "hf_hook_name": "model.layers.4.output"},
        {"hook_name": HOOK, "model_name": ["gpt2"]},
    ],
)
def test_what_reads_or_writes_another_place_is_refused(said):
    with pytest.raises(
        ValueError, match=r"one head|only a transcoder|hook_resid|both be right|to be a text"
    ):
        read_training(said)


@pytest.mark.parametrize(
    ("said", "note"),
    [
        ({"model_from_pretrained_kwargs": {"center_writing_weights": True}}, "center_writing"),
        ({"model_kwargs": {"fold_ln": True}}, "fold_ln"),
        ({"prepend_bos": False}, "prepend_bos False"),
        ({"seqpos_slice": [10, None]}, r"\[10, None\]"),
        ({"model_class_name": "HookedMamba"}, "HookedMamba"),
        ({"use_chat_formatting": True}, "chat format"),
        ({"model_name": "gpt2-small"}, "gpt2-small"),
        ({"input_scale": 2.0}, "input_scale"),
    ],
)
def test_what_is_neither_applied_nor_refused_is_noted(said, note):
    (found,) = read_training({"hook_name": HOOK, **said}).notes
    assert re.search(note, found)


def test_what_is_as_it_is_here_and_how_training_went_is_passed_over():
    as_here = {"hook_name": HOOK, "prepend_bos": True, "seqpos_slice": [None], "model_kwargs": {},
               "model_from_pretrained_kwargs": {"center_writing_weights": False},
               "model_class_name": "HookedTransformer", "use_chat_formatting": False}  # fmt: skip
    training = {"lr": 1e-3, "wandb_project": "x", "l1_coefficient": 5, "context_size": 128}
    assert read_training(as_here | training).notes == ()


def test_a_dictionary_that_does_not_tell_its_hook_says_so():
    assert "not say at which hook" in read_training({}).notes[0]


@pytest.mark.parametrize(
    ("model", "trained_on", "other"),
    [
        (GEMMA, ["google/gemma-3-270m"], None),
        (GEMMA, ["gemma-v3-270m-pt"], None),
        (GEMMA, ["gpt2-small", "gpt2"], "google/gemma-3-270m"),
        ({"name": "openai-community/gpt2"}, ["gpt2-small", "gpt2"], None),
        ({"name": "x", "source": {"hub": "google/gemma-2-2b"}}, ["gemma-2-2b"], None),
        ({"name": "x", "source": {"hub": "google/gemma-2-2b"}}, ["gemma-2-9b"],
         "google/gemma-2-2b"),
        ({"name": "mine", "source": {"folder": "/m"}}, ["gpt2"], None),
        ({"name": "google/gemma-3-270m", "source": {"package": "p"}}, ["gpt2"],
         "google/gemma-3-270m"),
        (GEMMA, [], None),
    ],
)  # fmt: skip
def test_a_public_name_is_compared_and_a_users_own_is_not(model, trained_on, other):
    assert another_model(model, trained_on) == other


def release(hook="blocks.12.hook_resid_post", **model):
    name = {"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_12/width_16k/canonical"}
    fine = {**name, "id": "layer_12/width_65k/canonical"}
    return {"model": {"dtype": "float32", **model}, "hook": hook,
            "dictionaries": {"coarse": name, "fine": fine}}  # fmt: skip


def test_a_release_of_another_model_is_refused_without_the_hub():
    assert check_experiment_inputs(release(name="gemma-2-2b")) == []
    problems = dict(check_experiment_inputs(release(name="google/gemma-2-9b")))
    assert problems.keys() == {f"spec.dictionaries.{side}.release" for side in ("coarse", "fine")}
    message = problems["spec.dictionaries.coarse.release"]
    assert "trained on gemma-2-2b" in message and "google/gemma-2-9b" in message
    spec = release(name="google/gemma-2-9b")
    for side in ("coarse", "fine"):
        spec["dictionaries"][side]["usableOn"] = "any"
    assert check_experiment_inputs(spec) == []


def test_the_registry_knows_a_short_name_of_the_same_model():
    jb = {"release": "gpt2-small-res-jb-feature-splitting", "id": "blocks.8.hook_resid_pre_768"}
    training = known_training(jb)
    assert "gpt2" in training.model_names and "center_writing_weights" in training.notes[0]
    fit = check_fit(
        "d", jb, None, "blocks.8.hook_resid_pre", {"name": "openai-community/gpt2"}, None
    )
    assert fit == []


@pytest.fixture
def gemma_scope_2(tmp_path):
    """Write a Gemma Scope 2 folder; the config says what the test wants."""

    def write(**said):
        shapes = {"w_enc": (8, 16), "w_dec": (16, 8), "b_enc": (16,), "b_dec": (8,),
                  "threshold": (16,)}  # fmt: skip
        tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        save_file(tensors, tmp_path / "params.safetensors")
        (tmp_path / "config.json").write_text(json.dumps({"architecture": "jump_relu", **said}))
        return {"path": str(tmp_path)}

    return write


def test_a_gemma_scope_2_folder_tells_hook_and_model(gemma_scope_2):
    facts = describe_dictionary(
        gemma_scope_2(model_name="gemma-v3-270m-pt", hf_hook_point_in="model.layers.3.output",
                      hf_hook_point_out="model.layers.3.output", type="sae", l0=60, width=16)
    )  # fmt: skip
    assert facts.hook_name == HOOK and another_model(GEMMA, facts.model_names) is None
    assert facts.notes == ("it says that it was trained on 'gemma-v3-270m-pt'",)
    with pytest.raises(InputRefused, match="q_proj"):
        describe_dictionary(gemma_scope_2(hf_hook_point_in="model.layers.3.self_attn.q_proj.input"))
    with pytest.raises(InputRefused, match="affine_connection"):
        describe_dictionary(gemma_scope_2(affine_connection=True))


def test_a_folder_with_two_dictionaries_is_refused(gemma_scope_2, tmp_path):
    dictionary = gemma_scope_2()
    (tmp_path / "sae_weights.safetensors").write_bytes(b"")
    with pytest.raises(InputRefused, match="more than one dictionary"):
        describe_dictionary(dictionary)


def test_the_page_of_formats_names_every_field_that_is_looked_at():
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    looked_at = {"hook_name", "hook_point", "hf_hook_name", "hf_hook_point_in", "hook_name_out",
                 "hf_hook_point_out", "hook_head_index", "affine_connection", "model_name",
                 *dictionary_training.NOTED}  # fmt: skip
    assert {name for name in looked_at if f"`{name}" not in page} == set()
