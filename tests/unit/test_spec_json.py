"""The stored form of a spec has the fields of its model, and what is stored fits it."""

from typing import get_args, get_type_hints

import pytest

from loopscope.specs import chat, rules, sources, spec_json, splits
from loopscope.specs.fields import Counted, GroupedTexts, Groups, Reference, Sample, Texts
from loopscope.specs.kinds import SPEC_BY_KIND, capture, experiment, question
from tests.simulated import experiment_spec, settled_experiment, texts
from tests.typed_json import ANY_JSON, misfits, required_keys

BY_KIND = {kind: getattr(spec_json, f"{kind}Json") for kind in SPEC_BY_KIND}
MODELS = {
    spec_json.ModelSourceJson: sources.ModelSource,
    spec_json.ModelJson: sources.Model,
    spec_json.DictionaryJson: sources.Dictionary,
    spec_json.SampleJson: Sample,
    spec_json.CountedJson: Counted,
    spec_json.TextsJson: Texts,
    spec_json.GroupsJson: Groups,
    spec_json.GroupedTextsJson: GroupedTexts,
    spec_json.ChatJson: chat.Chat,
    spec_json.PositionJson: chat.Position,
    spec_json.PromptSetsJson: capture.PromptSets,
    spec_json.SplitsJson: splits.Splits,
    spec_json.SelectionJson: rules.Selection,
    spec_json.ExpectedJson: rules.Expected,
    spec_json.MappingRulesJson: rules.MappingRules,
    spec_json.GateJson: rules.Gate,
    spec_json.EvidenceRulesJson: rules.EvidenceRules,
    spec_json.SamplingJson: rules.Sampling,
    spec_json.SteeringRulesJson: rules.SteeringRules,
    spec_json.ReferenceJson: Reference,
    spec_json.AskedLatentsJson: question.AskedLatents,
    spec_json.SteeredJson: question.Steered,
    spec_json.DictionariesJson: experiment.Dictionaries,
    spec_json.CalibrationJson: experiment.Calibration,
    **{BY_KIND[kind]: SPEC_BY_KIND[kind] for kind in SPEC_BY_KIND},
}


@pytest.mark.parametrize(("stored", "model"), MODELS.items(), ids=lambda one: one.__name__)
def test_the_stored_form_has_the_fields_of_the_model(stored, model):
    hints = get_type_hints(stored, localns=ANY_JSON)
    assert set(hints) == {field.alias for field in model.model_fields.values()}
    optional = {
        field.alias
        for field in model.model_fields.values()
        if type(None) in get_args(field.annotation)
    }
    assert not required_keys(stored) & optional


def test_every_kind_is_stored_as_declared(tmp_path):
    simulation = settled_experiment(tmp_path / "state")
    for record in simulation.objects():
        assert misfits(record.spec, BY_KIND[record.key.kind]) == []


def test_a_spec_with_all_that_may_be_left_out_is_stored_as_declared():
    spec = experiment_spec()
    grouped = {**texts("We went to", "We saw"), "groups": {"labels": ["a", "a"]}}
    full = experiment_spec(
        prompts={**spec["prompts"], "hardNegatives": texts("Bern is", "Kyiv is")},
        splits={"seed": 1, "test": 0.0},
        calibration={
            "text": texts("Some words."),
            "coarse": {"l0": [0, 9], "fvu": [0, 1]},
            "fine": {"l0": [0, 9], "fvu": [0, 1]},
        },
        evidence={},
        steering={**spec["steering"], "prompts": grouped, "systemPrompt": "Speak of Paris."},
        matrix={"hook": {"one": {"hook": "blocks.1.hook_resid_post"}}},
    )
    assert misfits(full, spec_json.ExperimentJson) == []
