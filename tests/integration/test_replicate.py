"""A tiny experiment replicated by real processes: its bundle elsewhere, and another pair."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.integration.real import Place
from tests.tiny_experiment import save_dictionary


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("replicated"))
    place.write()
    place.settle()
    return place


def document(output):
    """The JSON document in what a command printed beside its progress."""
    return json.loads(output[output.index("\n{\n") if not output.startswith("{") else 0 :])


def test_a_bundle_has_the_same_bytes_in_another_state_folder(place):
    bundle = place.folder / "bundle"
    assert place.call("export", "tiny", str(bundle))[0] == 0
    elsewhere = Place(place.folder / "elsewhere")
    elsewhere.folder.mkdir()
    code, output = elsewhere.call("replicate", str(bundle), "-o", "json")
    assert code == 0, output
    (found,) = document(output)["tried"]
    assert found["answer"] == "same bytes" and found["partsAt"] is None
    assert [step["state"] for step in found["steps"]] == ["same bytes"] * 5
    jobs = len(elsewhere.jobs())
    assert elsewhere.call("replicate", str(bundle))[0] == 0
    assert len(elsewhere.jobs()) == jobs


def noisy_copies(place, share):
    """Save a pair that holds a share of the experiment's latents, elsewhere and a little turned."""
    generator = np.random.default_rng(3)
    for side in ("coarse", "fine"):
        rows = load_file(place.folder / side / "sae_weights.safetensors")["W_dec"]
        kept = round(share * len(rows))
        other = generator.normal(size=rows.shape)
        other[:kept] = rows[:kept] + 0.05 * generator.normal(size=(kept, rows.shape[1]))
        save_dictionary(place.folder / "two" / side, other[generator.permutation(len(rows))])
    return place.folder / "two"


def test_the_share_of_latents_that_another_pair_holds_is_counted(place):
    folder = noisy_copies(place, 0.75)
    code, output = place.call(
        "replicate", "tiny", "--axis", f"dictionary=two:{folder}", "-o", "json"
    )
    assert code in (0, 1), output
    found = document(output)
    counted = {one["what"]: (one["count"], one["of"]) for one in found["pairs"]}
    assert counted["coarse latents, one for one at cosine 0.7"] == (36, 48)
    assert counted["fine latents, one for one at cosine 0.7"] == (72, 96)
    assert "coarse candidates that are absorbed" in counted
    (tried,) = found["tried"]
    assert tried["partsAt"] in ("coarse", "fine")
    assert [cause["name"] for cause in tried["steps"][1]["causes"]] == ["dictionary"]
