"""Dictionaries in the layouts of SAELens' loaders are encoded as SAELens encodes them."""

from __future__ import annotations

import json

import huggingface_hub.constants as hub_constants
import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.files import HashMemo
from loopscope.inputs.hub import Hub
from loopscope.numerics.dictionaries.sparse import decode, encode
from loopscope.worker.dictionaries import load_dictionary
from tests.fake_hub import FakeHub
from tests.layouts import (
    D_IN,
    D_SAE,
    REPOSITORIES,
    K,
    as_saelens_reads,
    drawn,
    rows,
    whole,
)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    with FakeHub() as fake:
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_constants, "ENDPOINT", fake.endpoint)
        template = hub_constants.HUGGINGFACE_CO_URL_TEMPLATE.split("/{repo_id}")[1]
        monkeypatch.setattr(
            hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{fake.endpoint}/{{repo_id}}{template}"
        )
        monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        yield fake


@pytest.fixture
def described(hub, tmp_path):
    def describe(**reference):
        client = Hub(hub.endpoint, tmp_path / "hub-cache", timeout_seconds=5)
        return describe_dictionary(reference, hub=client, memo=HashMemo(tmp_path / "hashes.json"))

    return describe


@pytest.mark.integration  # importing SAELens takes ten seconds
@pytest.mark.parametrize("of_whole_numbers", [False, True])
@pytest.mark.parametrize("loader", REPOSITORIES)
def test_a_registered_dictionary_is_encoded_and_decoded_as_by_saelens(
    hub, described, loader, of_whole_numbers
):
    repository = REPOSITORIES[loader]
    tensors = whole() if of_whole_numbers else drawn()
    hub.add(repository.repo, repository.published(tensors))
    facts = described(release=repository.release, id=repository.id)
    dictionary = load_dictionary(facts.ref)
    assert (facts.d_in, facts.d_sae) == (D_IN, D_SAE) == (dictionary.d_in, dictionary.d_sae)
    x = rows(of_whole_numbers=of_whole_numbers)
    theirs = as_saelens_reads(repository)
    with torch.no_grad():
        expected = theirs.encode(x)
        rebuilt = theirs.decode(expected)
    found = encode(dictionary, x, 7, 10)
    assert 0 < int((expected > 0).sum()) < expected.numel()
    np.testing.assert_allclose(
        np.sort(found.toarray()), np.sort(expected.numpy()), rtol=1e-5, atol=1e-5
    )
    if not of_whole_numbers:  # of equal pre-activations TopK takes the first, SAELens any
        np.testing.assert_allclose(found.toarray(), expected.numpy(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(decode(dictionary, found), rebuilt, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loader", REPOSITORIES)
def test_a_layout_is_refused_by_name_where_it_does_not_hold_what_it_should(hub, described, loader):
    repository = REPOSITORIES[loader]
    files = repository.published(drawn())
    named = {"release": repository.release, "id": repository.id}
    for name in files:
        hub.add(repository.repo, {other: files[other] for other in files if other != name})
        with pytest.raises(InputRefused, match=name.split("/")[-1].replace(".", r"\.")):
            described(**named)
    for name in (name for name in files if name.endswith(".safetensors")):
        tensors = load(files[name])
        for wrong, message in _wrong_tensors(tensors):
            hub.add(repository.repo, {**files, name: save(wrong)})
            with pytest.raises(InputRefused, match=message):
                described(**named)


def _wrong_tensors(tensors):
    for gone in tensors:
        yield {name: tensors[name] for name in tensors if name != gone}, "no [a-z_]+ among its"
    first = next(iter(tensors))
    yield {**tensors, "surprise": torch.zeros(3)}, "surprise"
    yield {**tensors, first: torch.zeros(2, 3)}, "do not belong together|has the shape"


def test_the_numbers_beside_the_tensors_are_part_of_the_identity(hub, described):
    repository = REPOSITORIES["llama_scope"]
    files = repository.published(drawn())
    hub.add(repository.repo, files)
    named = {"release": repository.release, "id": repository.id}
    facts = described(**named)
    assert facts.ref["reading"]["input_scale"] == repository.norm_scaling_factor
    assert facts.hook_name == "blocks.0.hook_resid_post" and facts.dtype == "bfloat16"
    assert described(**named) == facts
    config = f"{repository.path}/hyperparams.json"
    other = {**json.loads(files[config]), "jump_relu_threshold": 2.5}
    hub.add(repository.repo, {**files, config: json.dumps(other).encode()})
    assert described(**named).ref["identity"] != facts.ref["identity"]


def sparsify_folder(folder, tensors, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    config = {"d_in": D_IN, "num_latents": 0, "expansion_factor": D_SAE // D_IN, "k": K,
              "normalize_decoder": True, "activation": "topk", **changes}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config))
    weights = {
        "encoder.weight": tensors["w_enc"].T.contiguous(), "encoder.bias": tensors["b_enc"],
        "W_dec": tensors["w_dec"], "b_dec": tensors["b_dec"],
    }  # fmt: skip
    (folder / "sae.safetensors").write_bytes(save(weights))
    return weights


@pytest.mark.parametrize("of_whole_numbers", [False, True])
def test_a_sparsify_folder_is_encoded_as_its_own_coder_encodes(
    described, tmp_path, of_whole_numbers
):
    tensors = whole() if of_whole_numbers else drawn()
    folder = tmp_path / "model" / "layers.3"
    weights = sparsify_folder(folder, tensors)
    facts = described(path=str(folder))
    assert (facts.ref["format"], facts.hook_name) == ("sparsify", "blocks.3.hook_resid_post")
    dictionary = load_dictionary(facts.ref)
    x = rows(of_whole_numbers=of_whole_numbers)
    hidden = torch.relu(  # SparseCoder.encode and fused_encoder of sparsify
        torch.nn.functional.linear(
            x - weights["b_dec"], weights["encoder.weight"], weights["encoder.bias"]
        )
    )
    values, indices = torch.topk(hidden, K, dim=-1, sorted=False)
    expected = torch.zeros_like(hidden).scatter(1, indices, values)
    found = encode(dictionary, x, 7, 10)
    np.testing.assert_allclose(np.sort(found.toarray()), np.sort(expected.numpy()), atol=1e-5)
    if not of_whole_numbers:
        np.testing.assert_allclose(found.toarray(), expected.numpy(), atol=1e-5)
        rebuilt = values[:, None] @ weights["W_dec"][indices]
        torch.testing.assert_close(decode(dictionary, found), rebuilt[:, 0] + weights["b_dec"])


def test_a_sparsify_repository_is_read_by_its_name(hub, described, tmp_path):
    sparsify_folder(tmp_path / "layers.3", drawn())
    names = ("cfg.json", "sae.safetensors")
    files = {f"layers.3/{name}": (tmp_path / "layers.3" / name).read_bytes() for name in names}
    hub.add("someone/sae-of-a-model", files)
    facts = described(release="someone/sae-of-a-model", id="layers.3")
    assert (facts.ref["format"], facts.hook_name) == ("sparsify", "blocks.3.hook_resid_post")
    assert facts.ref["identity"] == described(path=str(tmp_path / "layers.3")).ref["identity"]
    assert load_dictionary(facts.ref).architecture == "topk"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transcode": True}, "transcode"),
        ({"skip_connection": True}, "skip_connection"),
        ({"activation": "groupmax"}, "groupmax"),
        ({"k": 0}, "expected k"),
        ({"expansion_factor": 7}, "do not belong together"),
    ],
)
def test_what_a_sparsify_folder_says_is_applied_or_refused(described, tmp_path, changes, message):
    sparsify_folder(tmp_path / "layers.3", drawn(), **changes)
    with pytest.raises(InputRefused, match=message):
        described(path=str(tmp_path / "layers.3"))
    sparsify_folder(tmp_path / "layers.3.mlp", drawn())
    with pytest.raises(InputRefused, match=r"layers\.3\.mlp.* names no block"):
        described(path=str(tmp_path / "layers.3.mlp"))
