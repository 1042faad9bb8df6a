"""What a spec file or a damaged thing says cannot steer the terminal of who looks at it."""

import pytest
import yaml

from loopscope.specs.keys import Key
from loopscope.state.db import objects
from loopscope.terminal.printable import printable
from tests.fuzz.seeds import document
from tests.simulated import Simulation, experiment_spec, texts

CLEARS_AND_RENAMES = "Paris \x1b[2J\x1b]0;mine\x07 \x9b31m \x7f is"
COMMANDS = [
    ("describe", "experiment", "france"),
    ("describe", "capture", "france-capture"),
    ("get", "experiments", "-o", "wide"),
    ("why", "experiment", "france"),
    ("events",),
]


def steering_signs(text):
    return [sign for sign in text if not sign.isprintable() and sign not in "\t\n"]


def test_letters_of_all_scripts_stay_and_signs_that_steer_do_not():
    assert printable("Élysée 東京\n\tβ") == "Élysée 東京\n\tβ"
    assert printable(CLEARS_AND_RENAMES) == "Paris ?[2J?]0;mine? ?31m ? is"


@pytest.fixture
def simulation(tmp_path):
    simulation = Simulation(tmp_path / "state")
    prompts = {"target": texts(CLEARS_AND_RENAMES), "neutral": texts("Rome is")}
    with simulation.state.database.write() as connection:
        objects.apply(
            connection,
            Key("Experiment", "default", "france"),
            experiment_spec(prompts=prompts),
            now=simulation.clock.now(),
            annotations={"note": CLEARS_AND_RENAMES},
        )
    simulation.step_until_running()
    return simulation


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_looking_at_an_object_prints_no_sign_that_steers(simulation, loopscope, words):
    code, out, err = loopscope(*words)
    assert code == 0 and steering_signs(out + err) == []
    if words == COMMANDS[0]:
        assert "?[2J?]0;mine?" in out


def test_a_refusal_of_a_file_prints_no_sign_that_steers(loopscope, tmp_path):
    bad = document("Capture", {"model": {"name": CLEARS_AND_RENAMES}, CLEARS_AND_RENAMES: 1})
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(bad))
    code, out, err = loopscope("apply", "-f", "bad.yaml")
    assert code == 2 and ("?[2J" in err or "\\x1b[2J" in err)
    assert steering_signs(out + err) == []
