"""A registered experiment that was cut short shows letters; names once it is whole or opened."""

import json
import re

import pytest

import loopscope
from loopscope.specs.blinding import letters_of
from loopscope.state.register import registrations
from tests.integration.real import Place
from tests.tiny_experiment import document

pytestmark = pytest.mark.integration

ARMS = (
    "none", "coarse", "fine", "multi", "coarsePair", "random-0", "random-1", "random-2",
    "randomLatent", "nonChildren", "meanDifference",
)  # fmt: skip
TOLD = ("Supported", "Refuted", "NoPracticalDifference", "NotTestable", "multi-coarse")
"""Words that only what came of a steering holds."""


def steering(**changes):
    return document("tiny")["spec"]["steering"] | changes


SHORT = {"prompts": {"texts": ["the people walked to"]}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Registered with three openings, edited to one, and run."""
    made = Place(tmp_path_factory.mktemp("blinded"))
    made.write(steering=steering())
    code, output = made.call("apply", "-f", str(made.specs), "--root", str(made.folder))
    assert code == 0, output
    code, output = made.call("register", "tiny")
    assert code == 0, output
    made.write(steering=steering(**SHORT), damage={})
    made.settle()
    return made


def shown(place, *words):
    code, output = place.call(*words)
    assert code == 0, output
    return output


def test_no_command_tells_what_came_of_an_arm(place):
    for words in (
        ("get", "steering", "tiny-steering", "-o", "json"),
        ("get", "experiment", "tiny", "-o", "yaml"),
        ("get", "experiments"), ("describe", "steering", "tiny-steering"), ("events",),
        ("describe", "experiment", "tiny"),
        ("describe", "damage", "tiny-damage"), ("logs", "steering/tiny-steering"),
    ):  # fmt: skip
        _, output = place.call(*words)
        assert not [word for word in TOLD if word in output], words
    status = json.loads(shown(place, "get", "steering", "tiny-steering", "-o", "json"))["status"]
    assert status["artifact"] is None
    assert sorted(status["summary"]) == ["blinded", "n", "reason"]
    assert "1 of 3 registered openings" in status["summary"]["reason"]
    assert "Blinded" in shown(place, "get", "experiments")


def test_arms_stand_under_letters_in_the_terminal_and_on_the_page(place):
    described = shown(place, "describe", "steering", "tiny-steering")
    block = described.split("Blinded arms:")[1].split("Jobs:")[0]
    assert not [arm for arm in ARMS if arm in block]
    assert set(re.findall(r"^ +([A-Z]) ", block, re.MULTILINE)) == set("ABCDEFGHIJK")
    page = place.folder / "blinded.html"
    shown(place, "report", "tiny", "-o", str(page))
    text = page.read_text()
    assert "Arms under letters" in text
    assert not [word for word in TOLD[:3] if f"Verdict: {word}" in text]


def test_the_notebook_and_the_bundle_have_no_texts(place):
    found = loopscope.open(place.state).experiments["tiny"]
    with pytest.raises(LookupError, match="Blinded: its arms are letters"):
        found.samples()
    assert "steering" not in found.artifacts
    folder = place.folder / "short"
    shown(place, "export", "tiny", str(folder))
    names = [path.name for path in folder.rglob("*")]
    assert "steering_samples.parquet" not in names and "arms.parquet" not in names
    shown(place, "verify", str(folder))


def test_what_rests_on_a_blinded_steering_is_not_made(place):
    assert "damage" not in {job["stage"] for job in place.jobs()}


def test_once_the_registered_number_is_scored_arms_have_names_and_letters_are_told(place):
    shown(place, "get", "experiments")  # whatever was looked at before
    place.write(steering=steering(), damage={})
    place.settle()
    status = json.loads(shown(place, "get", "steering", "tiny-steering", "-o", "json"))["status"]
    assert "verdict" in status["summary"] and "blinded" not in status["summary"]
    assert "Blinded arms" not in shown(place, "describe", "steering", "tiny-steering")
    folder = place.folder / "whole"
    shown(place, "export", "tiny", str(folder))
    register = json.loads((folder / "register.json").read_text())
    digest = registrations(place.state / "register")[-1]["digest"]
    assert register["letters"] == {one: arm for arm, one in letters_of(digest, ARMS).items()}
    said = json.loads(shown(place, "verify", str(folder), "-o", "json"))
    deviations = " | ".join(said["afterRegistration"])
    assert "another steering, of 1 openings" in deviations
    assert "damage was added after it was registered; it was made after unblinding" in deviations
    assert any(one.startswith("letters: A ") for one in said["registered"])


def test_letters_that_were_exchanged_are_noticed(place):
    path = place.folder / "whole" / "register.json"
    register = json.loads(path.read_text())
    letters = register["letters"]
    letters["A"], letters["B"] = letters["B"], letters["A"]
    path.write_text(json.dumps(register))
    code, output = place.call("verify", str(place.folder / "whole"))
    assert code == 5 and "letters" in output


def test_arms_that_are_opened_early_have_names_and_the_record_says_why(tmp_path):
    place = Place(tmp_path)
    place.write(steering=steering())
    assert place.call("apply", "-f", str(place.specs), "--root", str(place.folder))[0] == 0
    shown(place, "register", "tiny")
    code, output = place.call("register", "tiny", "--open")
    assert code != 0 and "--note" in output
    place.write(steering=steering(**SHORT))
    place.settle()
    shown(place, "register", "tiny", "--open", "--note", "the machine goes back")
    code, output = place.call("register", "tiny", "--open", "--note", "again")
    assert code != 0 and "opened already" in output
    place.settle()
    status = json.loads(shown(place, "get", "steering", "tiny-steering", "-o", "json"))["status"]
    assert "verdict" in status["summary"]
    assert "opened early" in shown(place, "register")
    folder = place.folder / "bundle"
    shown(place, "export", "tiny", str(folder))
    said = json.loads(shown(place, "verify", str(folder), "-o", "json"))
    assert any("the machine goes back" in one for one in said["afterRegistration"])
