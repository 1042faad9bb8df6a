"""Dictionaries in the layouts of SAELens' loaders are encoded as SAELens encodes them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import ClassVar

import huggingface_hub.constants as hub_constants
import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file, save, save_file

from loopscope.controller.apply.admission import check_decomposition_inputs, check_fit
from loopscope.inputs.architectures import ARCHITECTURES, StoredArchitecture
from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.files import HashMemo
from loopscope.inputs.headers import read_npz_headers, read_safetensors_header
from loopscope.inputs.hub import Hub
from loopscope.inputs.layouts import layout_of, single_files
from loopscope.inputs.layouts.layout import Entry
from loopscope.inputs.registered import registered_dictionaries
from loopscope.inputs.stored import stored_facts
from loopscope.numerics import architectures as computed
from loopscope.numerics.architectures import dictionary_of
from loopscope.numerics.architectures.jumprelu import JumpRelu
from loopscope.numerics.architectures.standard import Standard
from loopscope.numerics.dictionaries.sparse import decode, encode
from loopscope.state.failures import TerminalFailure
from loopscope.state.files import file_sha256
from loopscope.worker import dictionaries
from loopscope.worker.dictionaries import load_dictionary
from loopscope.worker.stored import stored_weights
from tests.fake_hub import FakeHub
from tests.layouts import (
    D_IN,
    D_SAE,
    REPOSITORIES,
    K,
    as_saelens_encodes,
    as_saelens_reads,
    drawn,
    pickled,
    rows,
    tensors_of_a_top_k,
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


@pytest.fixture
def narrow(monkeypatch):
    """Give the releases whose widths stand in no file the widths of the tests."""
    monkeypatch.setitem(single_files.QWEN_WIDTHS, "Qwen3-1.7B-Base", D_IN)
    for name in ("goodfire", "deepseek_r1"):
        monkeypatch.setitem(single_files.WIDTHS, REPOSITORIES[name].repo, (D_IN, D_SAE))


@pytest.fixture(autouse=True)
def converted_here(monkeypatch, tmp_path):
    """Convert pickles here: the child, which imports torch each time, has tests of its own."""

    def convert(path, sha256, _):
        content = torch.load(path, weights_only=True)
        tensors = {name: one for name, one in content.items() if isinstance(one, torch.Tensor)}
        made = tmp_path / f"{sha256}.safetensors"
        save_file({name: one.detach().contiguous() for name, one in tensors.items()}, made)
        return made

    monkeypatch.setattr(dictionaries, "converted", convert)
    return convert


@pytest.fixture
def laid(hub, tmp_path, converted_here):
    """Return the dictionary of a repository by its layout's table, whatever its hook is."""

    def read(repository):
        """Its hook or architecture is not known yet: the table alone."""
        client = Hub(hub.endpoint, tmp_path / "hub-cache")
        at = client.commit(repository.repo, "main", "release")
        entry = Entry(repository.repo, repository.path, "", repository.norm_scaling_factor)
        layout = layout_of(repository.loader, entry)
        files = layout.files(entry)
        before = f"{files.folder}/" if files.folder else ""
        paths = {
            name: client.download(at, before + name, "id")
            for name in (*files.configs, *files.weights)
        }
        weights = {name: paths[name] for name in files.weights}
        if layout.pickled:
            weights = {
                name: converted_here(path, file_sha256(path), tmp_path)
                for name, path in weights.items()
            }
        headers, tensors = {}, {}
        for path in weights.values():
            with path.open("rb") as stream:
                if path.suffix == ".npz":
                    headers |= read_npz_headers(stream)
                    tensors |= {name: torch.tensor(one) for name, one in np.load(path).items()}
                else:
                    headers |= read_safetensors_header(stream, path.stat().st_size)
                    tensors |= load_file(path)
        configs = {name: paths[name] for name in files.configs}
        sizes = {name: path.stat().st_size for name, path in weights.items()}
        facts = stored_facts(layout, entry, configs, headers, sizes, "id")
        reading = facts.reading
        made = stored_weights(layout.contents, reading.architecture, reading.numbers, tensors)
        assert (facts.d_in, facts.d_sae) == (D_IN, repository.d_sae)
        return dictionary_of(
            made.architecture,
            {name: tensor.float().contiguous() for name, tensor in made.tensors.items()},
            made.settings,
            apply_b_dec_to_input=made.apply_b_dec_to_input,
        )

    return read


@dataclass(frozen=True)
class PlainTranscoder(Standard):
    """What a transcoder's latents read, where the project has none yet."""

    architecture: ClassVar[str] = "transcoder"


@dataclass(frozen=True)
class PlainJump(JumpRelu):
    """The same with thresholds."""

    architecture: ClassVar[str] = "jumprelu_transcoder"


@dataclass(frozen=True)
class PlainSkip(JumpRelu):
    """The same with a matrix beside the latents."""

    architecture: ClassVar[str] = "jumprelu_skip_transcoder"
    required_tensors: ClassVar = {**JumpRelu.required_tensors, "w_skip": ("d_in", "d_in")}

    w_skip: torch.Tensor = field(kw_only=True)


PLAIN = {
    "transcoder": (StoredArchitecture(), PlainTranscoder),
    "jumprelu_transcoder": (StoredArchitecture({"threshold": ("d_sae",)}), PlainJump),
    "jumprelu_skip_transcoder": (
        StoredArchitecture({"threshold": ("d_sae",), "w_skip": ("d_in", "d_in")}), PlainSkip,
    ),
}  # fmt: skip


def judgement(repository):
    found = registered_dictionaries(repository.release)
    return next(one for one in found if one.id == repository.id)


def named(repository) -> dict[str, str]:
    convert = {"convert": "sealed"} if judgement(repository).pickled else {}
    return {"release": repository.release, "id": repository.id, **convert}


@pytest.mark.integration  # importing SAELens takes ten seconds
@pytest.mark.parametrize("loader", REPOSITORIES)
def test_a_registered_dictionary_is_encoded_and_decoded_as_by_saelens(
    hub, described, laid, narrow, monkeypatch, tmp_path, loader
):
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    repository = REPOSITORIES[loader]
    usable = judgement(repository).usable
    for architecture, (stored, plain) in PLAIN.items():
        if architecture not in ARCHITECTURES:
            monkeypatch.setitem(ARCHITECTURES, architecture, stored)
            monkeypatch.setitem(computed.ARCHITECTURES, architecture, plain)
    for of_whole_numbers in (False, True):
        hub.add(
            repository.repo,
            repository.published((whole if of_whole_numbers else drawn)(repository.d_sae)),
        )
        if usable:
            facts = described(**named(repository))
            assert (facts.d_in, facts.d_sae) == (D_IN, repository.d_sae)
            dictionary = load_dictionary(facts.ref)
        else:
            dictionary = laid(repository)
        x = rows(of_whole_numbers=of_whole_numbers)
        theirs = as_saelens_reads(repository)
        expected, rebuilt = as_saelens_encodes(theirs, x)
        read = dictionary.in_context(x)
        found = encode(dictionary, read, 7, 10_000)
        assert 0 < int((expected > 0).sum()) < expected.numel()
        np.testing.assert_allclose(
            np.sort(found.toarray()), np.sort(expected.numpy()), rtol=1e-5, atol=1e-5
        )
        if hasattr(theirs, "W_skip"):
            torch.testing.assert_close(dictionary.w_skip, theirs.W_skip)
        if not of_whole_numbers:  # of equal pre-activations TopK takes the first, SAELens any
            np.testing.assert_allclose(found.toarray(), expected.numpy(), rtol=1e-5, atol=1e-5)
            again = (
                dictionary.reconstruct(read, found)
                if "temporal" in loader
                else decode(dictionary, found)
            )
            torch.testing.assert_close(again, rebuilt, rtol=1e-5, atol=1e-4)


DESCRIBED_ELSEWHERE = ("sae_lens", "gemma_2", "gemma_3")
"""SAELens' own folders and Gemma Scope: what they refuse is in ``test_inputs_dictionaries.py``."""
READ_NOW = [name for name, one in REPOSITORIES.items() if judgement(one).usable]


def test_what_is_not_read_yet_lacks_a_hook_or_an_architecture():
    refused = {name: judgement(REPOSITORIES[name]).cause for name in REPOSITORIES.keys() - READ_NOW}
    assert all(cause.startswith(("hook ", "architecture ")) for cause in refused.values()), refused


@pytest.mark.parametrize("loader", [name for name in READ_NOW if name not in DESCRIBED_ELSEWHERE])
def test_a_layout_is_refused_by_name_where_it_does_not_hold_what_it_should(
    hub, described, narrow, loader
):
    repository = REPOSITORIES[loader]
    files = repository.published()
    for name in _needed(repository):
        hub.add(repository.repo, {other: files[other] for other in files if other != name})
        with pytest.raises(InputRefused, match=re.escape(name.split("/")[-1])):
            described(**named(repository))
    for name in (name for name in files if name.endswith(".safetensors")):
        tensors = load(files[name])
        for wrong, message in _wrong_tensors(tensors):
            hub.add(repository.repo, {**files, name: save(wrong)})
            with pytest.raises(InputRefused, match=message):
                described(**named(repository))


def _needed(repository):
    """Return the files without which a dictionary is refused."""
    entry = Entry(repository.repo, repository.path)
    layout = layout_of(repository.loader, entry)
    files = layout.files(entry)
    names = {*files.configs, *files.weights} - layout.contents.optional
    return [f"{files.folder}/{name}" if files.folder else name for name in sorted(names)]


def _wrong_tensors(tensors):
    for gone in tensors:
        yield {name: tensors[name] for name in tensors if name != gone}, "no [a-z_]+ among its"
    first = next(iter(tensors))
    yield {**tensors, "surprise": torch.zeros(3)}, "surprise"
    yield {**tensors, first: torch.zeros(2, 3)}, "do not belong together|has the shape"


def test_the_numbers_beside_the_tensors_are_part_of_the_identity(hub, described):
    repository = REPOSITORIES["llama_scope"]
    files = repository.published()
    hub.add(repository.repo, files)
    facts = described(**named(repository))
    assert facts.ref["reading"]["input_scale"] == repository.norm_scaling_factor
    assert facts.hook_name == "blocks.0.hook_resid_post" and facts.dtype == "bfloat16"
    assert described(**named(repository)) == facts
    config = f"{repository.path}/hyperparams.json"
    other = {**json.loads(files[config]), "jump_relu_threshold": 2.5}
    hub.add(repository.repo, {**files, config: json.dumps(other).encode()})
    assert described(**named(repository)).ref["identity"] != facts.ref["identity"]


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
        ({"k": D_SAE + 1}, f"k is {D_SAE + 1}, but there are only {D_SAE} latents"),
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


@pytest.mark.parametrize("loader", READ_NOW)
def test_pickled_weights_need_the_spec_to_ask_and_others_refuse_the_wish(
    hub, described, narrow, loader
):
    repository = REPOSITORIES[loader]
    hub.add(repository.repo, repository.published())
    release = {"release": repository.release, "id": repository.id}
    wrong = {} if judgement(repository).pickled else {"convert": "sealed"}
    with pytest.raises(InputRefused, match=r"convert: sealed|remove it") as refused:
        described(**release, **wrong)
    assert refused.value.field == "convert"
    assert described(**named(repository)).d_sae == repository.d_sae


def dictionary_learning_folder(folder, **changes):
    repository = REPOSITORIES["dictionary_learning_1-topk"]
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in repository.published().items():
        (folder / name.split("/")[-1]).write_bytes(data)
    config = json.loads((folder / "config.json").read_text())
    config["trainer"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_local_folder_with_a_pickle_is_the_dictionary_of_its_release(hub, described, tmp_path):
    folder = dictionary_learning_folder(tmp_path / "trainer_0")
    with pytest.raises(InputRefused, match="write convert: sealed"):
        described(path=str(folder))
    local = described(path=str(folder), convert="sealed")
    assert (local.architecture, local.hook_name) == ("topk", "blocks.12.hook_resid_post")
    repository = REPOSITORIES["dictionary_learning_1-topk"]
    hub.add(repository.repo, repository.published())
    assert local.ref["identity"] == described(**named(repository)).ref["identity"]
    assert load_dictionary(local.ref).k == K


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dict_class": "AutoEncoderNew"}, "dict_class 'AutoEncoderNew' is not supported"),
        ({"dict_class": "GatedAutoEncoder"}, "gated"),
        ({"submodule_name": "mlp_out_layer_12"}, "submodule_name 'mlp_out_layer_12'"),
        ({"k": 0}, "expected k"),
        ({"k": D_SAE + 1}, f"k is {D_SAE + 1}, but there are only {D_SAE} latents"),
        ({"layer": "12"}, "expected layer"),
        ({"dict_size": None}, "expected dict_size"),
    ],
)
def test_what_a_dictionary_learning_folder_says_is_applied_or_refused(
    described, tmp_path, changes, message
):
    if changes.get("dict_class") == "GatedAutoEncoder" and "gated" in ARCHITECTURES:
        return
    folder = dictionary_learning_folder(tmp_path / "trainer_0", **changes)
    with pytest.raises(InputRefused, match=message):
        described(path=str(folder), convert="sealed")


def test_a_file_that_is_larger_than_its_dictionary_can_be_is_not_opened(described, tmp_path):
    folder = dictionary_learning_folder(tmp_path / "trainer_0")
    with (folder / "ae.pt").open("r+b") as file:
        file.truncate(40 * 2**30)  # a sparse file of 40 GiB
    with pytest.raises(InputRefused, match=r"ae\.pt has 42949672960 bytes, but a topk dictionary"):
        described(path=str(folder), convert="sealed")


@pytest.mark.parametrize("loader", ["gemma_3", "llama_scope", "dictionary_learning_1"])
def test_a_file_of_40_gb_in_a_repository_is_refused_before_it_is_fetched(hub, described, loader):
    repository = REPOSITORIES[loader]
    files = repository.published(drawn(repository.d_sae))
    hub.add(repository.repo, files)
    said = {name: 40 * 2**30 for name in files if name.endswith((".safetensors", ".pt"))}
    hub.repositories[repository.repo].said_sizes.update(said)
    with pytest.raises(InputRefused, match=r"\d{11} bytes( at the end belong to no tensor|, but)"):
        described(**named(repository))
    assert hub.bytes_sent < 2**20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"bias": torch.zeros(D_IN)}, "no encoder"),
        ({**tensors_of_a_top_k(), "surprise": torch.zeros(3)}, "'surprise' has no meaning"),
        ({**tensors_of_a_top_k(), "encoder.bias": torch.zeros(3)}, "b_enc must be"),
    ],
)
def test_a_pickle_that_holds_no_such_dictionary_is_refused_by_name(
    described, tmp_path, content, message
):
    folder = dictionary_learning_folder(tmp_path / "trainer_0")
    (folder / "ae.pt").write_bytes(pickled(content))
    with pytest.raises(TerminalFailure, match=message) as failed:
        load_dictionary(described(path=str(folder), convert="sealed").ref)
    assert failed.value.reason == "UnsupportedDictionary"


@pytest.mark.parametrize(
    ("release", "sae_id", "hook", "model"),
    [
        ("llama_scope_lxr_8x", "l5r_8x", "blocks.5.hook_resid_post", "meta-llama/Llama-3.1-8B"),
        ("llama_scope_lxr_32x", "l5r_32x", "blocks.5.hook_resid_post", "meta-llama/Llama-3.1-8B"),
        ("gemma-scope-2b-pt-att-canonical", "layer_5/width_16k/canonical", "blocks.5.attn.hook_z",
         "google/gemma-2-2b"),
        ("gemma-scope-2-4b-it-transcoders", "transcoder/layer_17_width_16k_l0_big",
         "blocks.17.mlp.hook_in", "google/gemma-3-4b-it"),
        ("sae_bench_pythia70m_sweep_topk_ctx128_0730", "blocks.3.hook_resid_post__trainer_0",
         "blocks.3.hook_resid_post", "EleutherAI/pythia-70m-deduped"),
        ("mntss-gemma-2-2b-2.5m-clt-as-per-layer", "layer_3", "blocks.3.hook_resid_mid",
         "google/gemma-2-2b"),
    ],
)  # fmt: skip
def test_releases_of_each_kind_are_accepted_offline_at_their_hook_and_model(
    release, sae_id, hook, model
):
    convert = {"convert": "sealed"} if "pythia" in release else {}
    dictionary = {"release": release, "id": sae_id, **convert}
    assert check_decomposition_inputs({"dictionary": dictionary}) == []
    assert check_fit("spec.dictionaries.fine", dictionary, None, hook, {"name": model}, None) == []
    other = check_fit("f", dictionary, None, "blocks.0.hook_resid_pre", {"name": model}, None)
    assert bool(other) == (not release.startswith("mntss"))  # its hook stands in its config
