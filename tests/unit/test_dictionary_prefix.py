"""The first latents of a dictionary are a dictionary of their own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from loopscope.controller.apply.admission import check_experiment_inputs
from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.files import HashMemo
from loopscope.numerics.dictionaries.sparse import encode
from loopscope.specs.sources import Dictionary
from loopscope.worker import dictionaries
from loopscope.worker.dictionaries import load_dictionary
from tests.unit.test_controller_admission import dictionary, spec  # noqa: F401 - a fixture

D_IN, D_SAE = 8, 30


@pytest.fixture
def memo(tmp_path):
    return HashMemo(tmp_path / "hashes.json")


def matryoshka(folder, architecture="jumprelu", **more):
    folder.mkdir()
    generator = torch.Generator().manual_seed(2)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    config = {"architecture": architecture, "d_in": D_IN, "d_sae": D_SAE,
              "metadata": {"sae_lens_version": "6.54.0"}, **more}  # fmt: skip
    weights = {"W_enc": normal(D_IN, D_SAE), "W_dec": normal(D_SAE, D_IN), "b_enc": normal(D_SAE),
               "b_dec": normal(D_IN)}  # fmt: skip
    if architecture != "topk":
        weights["threshold"] = normal(D_SAE).abs()
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(weights, folder / "sae_weights.safetensors")
    return str(folder)


@pytest.mark.parametrize("architecture", ["jumprelu", "matryoshka_batchtopk"])
def test_a_prefix_reads_as_the_whole_dictionary_does(tmp_path, memo, architecture):
    rescaled = {} if architecture == "jumprelu" else {"rescale_acts_by_decoder_norm": True}
    path = matryoshka(tmp_path / "m", architecture, **rescaled)
    whole = describe_dictionary({"path": path}, memo=memo)
    part = describe_dictionary({"path": path, "prefix": 10}, memo=memo)
    assert (part.d_sae, part.ref["d_sae"]) == (10, 10)
    assert part.ref["identity"] != whole.ref["identity"]
    assert "the first 10 of 30 latents" in part.notes
    x = torch.randn(40, D_IN, generator=torch.Generator().manual_seed(1))
    of_whole = encode(load_dictionary(whole.ref), x, 40, 30)
    found = load_dictionary(part.ref)
    np.testing.assert_allclose(
        encode(found, x, 40, 10).toarray(), of_whole[:, :10].toarray(), atol=1e-5
    )
    assert torch.equal(found.w_dec, load_dictionary(whole.ref).w_dec[:10])


@pytest.mark.parametrize(
    ("prefix", "words"),
    [("3", "found the text '3'; remove quotes"), (True, "a number, found true")],
)
def test_a_prefix_that_is_no_number_is_refused(prefix, words):
    with pytest.raises(ValueError, match=words):
        Dictionary.model_validate({"path": "m", "prefix": prefix})


def test_a_wide_prefix_of_a_mapped_file_lies_in_a_file_of_its_own(tmp_path, memo, monkeypatch):
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dictionaries, "CONVERTED_BYTES_MIN", 1)
    path = matryoshka(tmp_path / "m")
    whole = describe_dictionary({"path": path}, memo=memo)
    wide = load_dictionary(whole.ref)
    part = describe_dictionary({"path": path, "prefix": 10}, memo=memo)
    cache = tmp_path / "cache" / "loopscope" / "dictionaries"
    for _ in range(2):  # made, and found again
        found = load_dictionary(part.ref)
        assert [one.name for one in cache.iterdir() if one.is_dir()] == [part.ref["identity"]]
        assert torch.equal(found.w_dec, wide.w_dec[:10])
        assert torch.equal(found.w_enc, wide.w_enc[:, :10])


def test_two_prefixes_are_two_dictionaries(tmp_path, memo):
    path = matryoshka(tmp_path / "m")
    named = [{"path": path}, {"path": path, "prefix": 5}, {"path": path, "prefix": 6}]
    identities = {describe_dictionary(one, memo=memo).ref["identity"] for one in named}
    assert len(identities) == 3


@pytest.mark.parametrize("prefix", [D_SAE, D_SAE + 1])
def test_a_prefix_wider_than_the_dictionary_is_refused(tmp_path, memo, prefix):
    told = f"expected fewer latents than the dictionary has \\({D_SAE}\\), found {prefix}"
    with pytest.raises(InputRefused, match=told) as refused:
        describe_dictionary({"path": matryoshka(tmp_path / "m"), "prefix": prefix}, memo=memo)
    assert refused.value.field == "prefix"


def test_latents_that_compete_have_no_prefix(tmp_path, memo):
    path = matryoshka(tmp_path / "m", "topk", k=4)
    with pytest.raises(InputRefused, match="compete with one another"):
        describe_dictionary({"path": path, "prefix": 5}, memo=memo)


def test_a_prefix_is_the_coarse_dictionary_inside_the_fine_one(spec, tmp_path, memo):  # noqa: F811
    both = dictionary(tmp_path / "both", d_sae=32)
    spec["dictionaries"] = {"coarse": {**both, "prefix": 8}, "fine": both}
    assert check_experiment_inputs(spec, memo) == []
    spec["dictionaries"]["coarse"]["prefix"] = 64
    ((field, message),) = check_experiment_inputs(spec, memo)
    assert field == "spec.dictionaries.coarse.prefix" and "(32), found 64" in message


def test_a_prefix_has_at_least_one_latent(tmp_path):
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Dictionary.model_validate({"path": str(tmp_path), "prefix": 0})
