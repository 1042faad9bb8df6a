"""What an apply says of models and dictionaries that only a hub knows."""

import json

import pytest

from loopscope.controller.plan.unchecked import unchecked_inputs
from loopscope.reconcilers.references import input_references
from loopscope.specs.yaml.loading import load_path
from loopscope.state.db import inputs
from tests.hand_built import stored
from tests.simulated import canonical, experiment_spec, new_state, texts

HUB = {
    "name": "tiny",
    "source": {"hub": "someone/tiny"},
}
COARSE = {"release": "res-jb", "id": "blocks.2.hook_resid_pre"}
MODEL_WORDS = "not checked: only the hub knows whether there is a model someone/tiny"
COARSE_WORDS = "there is a dictionary blocks.2.hook_resid_pre of release res-jb"


def spec(**changes):
    found = {**experiment_spec(), "model": HUB, **changes}
    found["dictionaries"] = {"coarse": COARSE, "fine": {"path": "fine"}}
    return found


@pytest.fixture
def notes(tmp_path):
    """Return a function that returns the notes on one object, as (field, words)."""

    def of(kind, spec, state=None):
        manifest = {
            "apiVersion": "loopscope.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": "x"},
            "spec": spec,
        }
        (tmp_path / "fine").mkdir(exist_ok=True)
        (tmp_path / "x.yaml").write_text(json.dumps(manifest))
        found = unchecked_inputs(state, load_path(tmp_path / "x.yaml", tmp_path))
        return [(problem.field, problem.message) for problem in found]

    return of


def test_each_input_of_a_hub_is_named_with_its_field_and_those_of_folders_are_not(notes):
    (model, words), (side, of_coarse) = notes("Experiment", spec())
    assert (model, side) == ("spec.model.source.hub", "spec.dictionaries.coarse.release")
    assert words.startswith(MODEL_WORDS)
    assert COARSE_WORDS in of_coarse


def test_a_model_without_a_source_is_looked_up_by_its_name(notes):
    ((field, words), _) = notes("Experiment", spec(model={"name": "gpt2"}))
    assert field == "spec.model.name" and "a model gpt2;" in words


def test_a_capture_names_its_model_and_a_decomposition_its_dictionary(notes):
    known = experiment_spec()
    capture = {"model": HUB, "hook": known["hook"], "prompts": known["prompts"]}
    ((field, _),) = notes("Capture", capture)
    assert field == "spec.model.source.hub"
    ((field, words),) = notes(
        "Decomposition", {"captureRef": {"name": "cap"}, "dictionary": COARSE}
    )
    assert field == "spec.dictionary.release" and COARSE_WORDS in words


def test_in_a_matrix_each_input_is_named_once_where_it_stands(notes):
    matrix = {
        "topic": {
            "cities": {"prompts": experiment_spec()["prompts"]},
            "rivers": {"prompts": {"target": texts("The Seine"), "neutral": texts("The Tiber")}},
        },
        "model": {"own": {"model": HUB}, "named": {"model": {"name": "gpt2"}}},
    }
    found = notes("Experiment", spec(matrix=matrix, steering=None))
    assert sorted(field for field, _ in found) == [
        "spec.dictionaries.coarse.release",
        "spec.matrix.model.named.model.name",
        "spec.matrix.model.own.model.source.hub",
    ]


@pytest.mark.parametrize(
    ("facts", "answer", "begins", "ends"),
    [
        ({"ref": {}}, {}, None, None),
        (None, {"terminal": True, "message": "no such model"}, "refused when", "asked for again"),
        (None, {"message": "no answer"}, MODEL_WORDS, "begins (last answer: no answer)"),
        (None, None, MODEL_WORDS, "asked when work begins"),
    ],
)
def test_what_the_hub_answered_last_is_said_and_what_is_known_is_not_named(
    notes, tmp_path, facts, answer, begins, ends
):
    state = new_state(tmp_path / "state")
    capture = {
        "model": HUB, "hook": experiment_spec()["hook"], "prompts": experiment_spec()["prompts"],
    }  # fmt: skip
    (reference,) = input_references(stored("Capture", "x", canonical("Capture", capture)))
    if answer is not None:
        with state.database.write() as connection:
            inputs.record(
                connection, reference.digest, "model", capture["model"],
                now=1.0, facts=facts, **{"reason": "NotFound", **answer},
            )  # fmt: skip
    found = notes("Capture", capture, state)
    if begins is None:
        assert found == []
    else:
        ((_, words),) = found
        assert words.startswith(begins) and words.endswith(ends)
