"""Examples with dictionaries from the hub resolve there: repositories in the real layouts, small.

Their prompts, names and offline checks are in ``test_examples.py``, the numbers that such files
hold in ``test_layouts.py``.
"""

import json
from pathlib import Path

import huggingface_hub.constants as hub_constants
import numpy as np
import pytest
from safetensors.numpy import save

from loopscope.context import root_of
from loopscope.controller.apply.admission import check_fit, check_hook, check_written
from loopscope.controller.plan.applying import load_admitted
from loopscope.inputs.chat_templates import chat_template_of
from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.files import HashMemo
from loopscope.inputs.hub import Hub
from loopscope.inputs.models import describe_model
from loopscope.inputs.releases import find_release
from tests.fake_hub import FakeHub
from tests.layouts import (
    D_IN,
    D_SAE,
    dictionary_learning,
    drawn,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    top_k,
)

EXAMPLES = Path(__file__).parents[2] / "examples"
WIDTHS = {"coarse": D_SAE, "fine": 2 * D_SAE}


def _llama(d_sae, where):
    point = "blocks.15.hook_resid_post"
    return {**where, "d_sae": d_sae, "hook_point_in": point, "hook_point_out": point}


def _pythia(d_sae, where):
    trainer = {"layer": 3, "lm_name": "EleutherAI/pythia-70m-deduped", "dict_size": d_sae}
    where["trainer"] |= {**trainer, "submodule_name": "resid_post_layer_3"}
    return where


def _gemma(_, where):
    return {**where, "model_name": "google/gemma-3-270m-it"}


LAYOUTS = {
    "llama-scope": (llama_scope, _llama),
    "gemma-scope-attention": (gemma_scope, lambda _, where: where),
    "gemma-scope-2-transcoder": (gemma_scope_2, _gemma),
    "pythia-70m": (dictionary_learning("AutoEncoderTopK", top_k), _pythia),
}
"""By example: how its dictionaries lie in files, and what their configs say beside the widths."""
MODELS = {
    "llama-scope": ("LlamaForCausalLM", "llama", 32),
    "gemma-scope-attention": ("Gemma2ForCausalLM", "gemma2", 26),
    "gemma-scope-2-transcoder": ("Gemma3ForCausalLM", "gemma3_text", 18),
    "pythia-70m": ("GPTNeoXForCausalLM", "gpt_neox", 6),
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    with FakeHub() as fake:
        yield fake


def model_files(example):
    architecture, model_type, layers = MODELS[example]
    config = {
        "architectures": [architecture], "model_type": model_type, "hidden_size": D_IN,
        "num_hidden_layers": layers, "num_attention_heads": 2, "head_dim": D_IN // 2,
        "intermediate_size": 4 * D_IN,
    }  # fmt: skip
    tokenizer = {"bos_token": "<bos>", "chat_template": "{{ bos_token }}{{ messages[0].content }}"}
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": save({"w": np.arange(6, dtype=np.float32)}),
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": json.dumps(tokenizer).encode(),
    }


def publish(fake, example, spec):
    """Serve the repositories that an example names; both dictionaries may lie in one."""
    layout, said = LAYOUTS[example]
    repositories: dict[str, dict[str, bytes]] = {}
    for side, d_sae in WIDTHS.items():
        named = spec["dictionaries"][side]
        entry = find_release(named["release"], named["id"])
        files = layout(entry.path, drawn(d_sae))
        for name, content in files.items():
            if name.endswith(".json"):
                files[name] = json.dumps(said(d_sae, json.loads(content))).encode()
        repositories.setdefault(entry.repo, {}).update(files)
    for repo, files in repositories.items():
        fake.add(repo, files)
    name = spec["model"]["name"]
    fake.add(name if "/" in name else f"google/{name}", model_files(example))


@pytest.mark.parametrize("example", LAYOUTS)
def test_an_example_resolves_against_repositories_in_the_layout_of_its_loader(
    hub, tmp_path, example
):
    file = EXAMPLES / example / "experiment.yaml"
    (item,) = load_admitted(file, root_of(file, None))
    spec = item.manifest.canonical_spec()
    publish(hub, example, spec)
    client, memo = Hub(hub.endpoint, tmp_path / "hub-cache"), HashMemo(tmp_path / "hashes.json")
    model = describe_model(spec["model"], hub=client, memo=memo)
    assert check_hook(spec["hook"], spec["model"], model) == []
    for side, d_sae in WIDTHS.items():
        dictionary = spec["dictionaries"][side]
        facts = describe_dictionary(dictionary, hub=client, memo=memo)
        assert (facts.d_in, facts.d_sae, facts.hook_name) == (D_IN, d_sae, spec["hook"])
        assert facts.write_hook == spec.get("writeHook")
        assert check_fit(side, dictionary, facts, spec["hook"], spec["model"], model) == []
        assert check_written(side, dictionary, facts, spec, model) == []
    if "chat" in spec["prompts"]:
        assert (
            chat_template_of(model.ref, client)
            == (json.loads(model_files(example)["tokenizer_config.json"])["chat_template"])
        )
