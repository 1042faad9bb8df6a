"""The tiny trained model and its dictionaries: whole experiments on text that means something.

It is no scientific model (``examples/dictionaries/tiny``). Random weights show that numbers are
right; here latents answer to a kind of text, and steering along them moves what is written.
"""

from __future__ import annotations

import json

import pytest
import yaml

import loopscope
from loopscope.notebook_experiment import Experiment
from tests.integration.real import REPOSITORY, Place

pytestmark = pytest.mark.integration

TINY = REPOSITORY / "examples" / "dictionaries" / "tiny"
HOOK = "blocks.1.hook_resid_post"
PLACES = {
    "templates": ["{name} is a city in the south of {land}", "{name} is the capital of {land}"],
    "lists": {"name": ["Dresden", "Lanzhou", "Dnipro", "Kandahar"],
              "land": ["Germany", "China", "Ukraine"]},
}  # fmt: skip
PEOPLE = {
    "templates": ["{name} was a {of} writer and the author", "{name} is a {of} singer who"],
    "lists": {"name": ["Henri Kohl", "Mary Scott", "John Lewis", "Anna Weber"],
              "of": ["French", "German", "British"]},
}  # fmt: skip
OPENINGS = ["The", "In the", "It is", "He was", "This", "Most of the", "Later", "Their"]
LEXICON = ["city", "capital", "located", "population", "river", "largest", "country", "island",
           "province", "region"]  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """What ``loopscope run`` made of an experiment on it."""
    place = Place(tmp_path_factory.mktemp("trained"))
    spec = {
        "model": {"name": "tiny-gpt2", "source": {"folder": str(TINY / "model")}},
        "hook": HOOK,
        "prompts": {"target": PLACES, "neutral": PEOPLE},
        "positions": "all",
        "aggregation": "mean",
        "dictionaries": {side: {"path": str(TINY / side)} for side in ("coarse", "fine")},
        "selection": {"minSelectivity": 0.3, "minFiringRateTarget": 0.3, "top": 3},
        "gate": {"minSubfeatures": 1},
        "steering": {
            "strengths": [0.5, 1.0],
            "maxNewTokens": 12,
            "randomDraws": 3,
            "samplesPerPrompt": 2,
            "prompts": {"texts": OPENINGS},
            "neutralText": {"texts": ["The book was written by a member of the group"]},
            "lexicon": {"texts": LEXICON},
        },
    }
    place.specs.mkdir()
    document = {
        "apiVersion": "loopscope.dev/v1alpha1", "kind": "Experiment",
        "metadata": {"name": "tiny"}, "spec": spec,
    }  # fmt: skip
    (place.specs / "tiny.yaml").write_text(yaml.safe_dump(document))
    place.settle()
    return loopscope.open(place.state).experiments["tiny"]


def test_the_model_says_that_it_is_none_to_learn_from_and_is_small():
    said = json.loads((TINY / "training.json").read_text())
    assert "nothing about language models follows" in said["what"]
    files = [path for path in TINY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000


def test_its_dictionaries_explain_text_that_they_were_not_trained_on(ran):
    said = json.loads((TINY / "training.json").read_text())["dictionaries"]
    for side in ("coarse", "fine"):
        metrics = ran.artifacts[side].metrics
        assert metrics["text_fvu"] == pytest.approx(said[side]["fvu_heldout"], abs=0.1)
        assert metrics["text_l0"] == pytest.approx(16, abs=0.5)


def test_latents_answer_to_a_kind_of_text_and_the_experiment_ends_with_a_verdict(ran):
    coarse = ran.features("coarse")
    chosen = coarse[coarse["candidate"]]
    assert len(chosen) and chosen["auroc"].max() > 0.9
    assert ran.status["summary"]["gate"] in ("GO", "NO-GO", "INCONCLUSIVE")
    words = ("Supported", "Refuted", "NoPracticalDifference", "Inconclusive", "NotTestable")
    assert ran.verdict()["verdict"] in words


def test_steering_along_them_moves_what_is_written_towards_it(ran):
    arms = ran.arms().set_index(["arm", "strength"])
    probe, kl = arms["probe"], arms["kl"]
    assert probe["coarse", 0.5] > probe["none", 0.0] + 0.2, "a probe reads places in it"
    for strength in (0.5, 1.0):
        for arm in ("coarse", "fine", "multi"):
            assert kl[arm, strength] == pytest.approx(strength, rel=0.1), "all disturb alike"
