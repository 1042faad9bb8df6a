import math
from typing import get_args

import pytest
from pydantic import ValidationError

from loopscope.specs.keys import ANNOTATIONS, PIN_ANNOTATION, PROTECT_ANNOTATION
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.kinds.steering import SteeringSpec
from loopscope.specs.objects import Metadata
from loopscope.specs.rules import Arm, Gate, MappingRules, Sampling, Selection
from loopscope.specs.sources import Dictionary, ModelSource
from tests.simulated import canonical, experiment_spec, texts


def table(**changes):
    columns = {
        "latent": [0, 1, 2, 3],
        "selectivity": [0.9, 0.9, 0.95, 0.8],
        "firing_rate_target": [0.5, 0.6, 0.4, 0.3],
        "firing_rate_neutral": [0.1, 0.1, 0.1, 0.2],
        "q_value": [0.01, 0.01, 0.01, 0.05],
    }
    return {**columns, **changes}


def test_candidates_come_by_selectivity_times_firing_rate():
    assert Selection().candidates(table()) == [1, 0, 2, 3]


def test_equal_candidates_come_by_number():
    same = table(selectivity=[0.9] * 4, firing_rate_target=[0.5] * 4, latent=[3, 1, 2, 0])
    assert Selection().candidates(same) == [0, 1, 2, 3]


def test_every_threshold_is_inclusive():
    edge = Selection(
        minSelectivity=0.8, minFiringRateTarget=0.3, maxFiringRateNeutral=0.2, maxQ=0.05
    )
    assert 3 in edge.candidates(table())


@pytest.mark.parametrize(
    ("field", "column", "value"),
    [
        ("minSelectivity", "selectivity", 0.79),
        ("minFiringRateTarget", "firing_rate_target", 0.29),
        ("maxFiringRateNeutral", "firing_rate_neutral", 0.21),
        ("maxQ", "q_value", 0.051),
    ],
)
def test_missing_one_threshold_is_enough_to_fall_out(field, column, value):
    rows = table()
    rows[column] = [*rows[column][:3], value]
    assert Selection().candidates(rows) == [1, 0, 2]


@pytest.mark.parametrize("column", ["selectivity", "firing_rate_target", "q_value"])
def test_a_nan_never_passes(column):
    rows = table()
    rows[column] = [math.nan, *rows[column][1:]]
    loose = Selection(minSelectivity=-1.0, minFiringRateTarget=0.0, maxQ=0.99)
    assert 0 not in loose.candidates(rows)


def test_only_the_best_are_kept_and_an_empty_table_has_none():
    assert Selection(top=2).candidates(table()) == [1, 0]
    assert Selection().candidates({name: [] for name in table()}) == []


def test_columns_of_different_lengths_are_an_error():
    with pytest.raises(ValueError):
        Selection().candidates(table(q_value=[0.01]))


def test_a_partial_cosine_above_the_cut_off_is_refused():
    assert MappingRules(minCosine=0.1, partialCosine=0.1).min_cosine == 0.1
    with pytest.raises(ValidationError, match="must not exceed"):
        MappingRules(minCosine=0.05)


@pytest.mark.parametrize(
    ("model", "field", "values"),
    [
        (Selection, "minSelectivity", [-1.01, 1.01]),
        (Selection, "maxQ", [-0.01, 1.01, math.nan, math.inf]),
        (Selection, "top", [0, 1001, 1.5]),
        (MappingRules, "minCosine", [-0.1, 1.1]),
        (MappingRules, "topK", [0]),
        (Gate, "minSubfeatures", [0]),
        (Gate, "rule", ["loose"]),
        (Sampling, "temperature", [0.0, 11.0]),
        (Sampling, "topP", [0.0, 1.1]),
        (Sampling, "seed", [-1, 2**32]),
    ],
)
def test_a_value_out_of_bounds_is_refused(model, field, values):
    for value in values:
        with pytest.raises(ValidationError):
            model.model_validate({field: value})


def test_the_defaults_are_those_of_the_declared_science():
    assert Selection().model_dump(by_alias=True) == {
        "minSelectivity": 0.8,
        "minFiringRateTarget": 0.3,
        "maxFiringRateNeutral": 0.2,
        "maxQ": 0.05,
        "top": 5,
    }
    rules = MappingRules()
    assert (rules.min_cosine, rules.partial_cosine, rules.min_correlation) == (0.3, 0.1, 0.2)
    assert (Gate().rule, Gate().min_subfeatures, Gate().policy) == ("cosine", 3, "report")


def test_steering_refuses_what_it_holds_twice_or_not_at_all():
    spec = {
        **experiment_spec()["steering"],
        "captureRef": {"name": "c"},
        "mappingRef": {"name": "m"},
    }
    assert SteeringSpec.model_validate(spec).arms == get_args(Arm)
    for wrong in (
        {"arms": ["none", "none"]},
        {"arms": ["left"]},
        {"strengths": [1.0, 1]},
        {"strengths": [0.0]},
        {"strengths": []},
        {"lexicon": {"texts": []}},
        {"systemPrompt": ""},
    ):
        with pytest.raises(ValidationError):
            SteeringSpec.model_validate({**spec, **wrong})


def test_a_norm_as_unit_needs_strengths_in_that_unit():
    spec = {
        **experiment_spec()["steering"],
        "captureRef": {"name": "c"},
        "mappingRef": {"name": "m"},
        "strengthUnit": "residualNorm",
    }
    assert SteeringSpec.model_validate(spec).strengths == (0.5,)
    del spec["strengths"]
    with pytest.raises(ValidationError, match="residualNorm needs strengths"):
        SteeringSpec.model_validate(spec)


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"hub": "a/b", "folder": "/m"},
        {"folder": "/m", "revision": "main"},
        {"folder": "/m", "sha256": "0" * 64},
        {"gguf": "/m.gguf", "sha256": "0" * 63},
        {"hub": "../etc passwd"},
        {"gguf": ""},
    ],
)
def test_a_model_has_exactly_one_source_and_its_own_qualifiers(source):
    with pytest.raises(ValidationError):
        ModelSource.model_validate(source)


@pytest.mark.parametrize(
    "source",
    [{}, {"path": "/d", "release": "r", "id": "i"}, {"release": "r"}, {"id": "i"},
     {"path": "/d", "id": "i"}, {"path": "/d", "revision": "main"}],
)  # fmt: skip
def test_a_dictionary_is_a_path_or_a_release_with_id(source):
    with pytest.raises(ValidationError):
        Dictionary.model_validate(source)


@pytest.mark.parametrize("aggregation", ["max", "mean"])
def test_an_aggregation_over_tokens_needs_all_tokens(aggregation):
    with pytest.raises(ValidationError, match="positions: all"):
        experiment_spec(aggregation=aggregation)
    assert experiment_spec(aggregation=aggregation, positions="all")["positions"] == "all"


@pytest.mark.parametrize(
    "hook",
    ["blocks.1.attn.hook_q", "blocks.1.attn.hook_pattern", "blocks.1.ln1.hook_normalized",
     "blocks.1.hook_z", "blocks.1.attn.z", "blocks.1.mlp_out", "hook_embed",
     "blocks.-1.hook_resid_pre", "blocks.01.hook_resid_pre", "xblocks.1.hook_resid_pre",
     "blocks.1.hook_resid_pre\n"],
)  # fmt: skip
def test_what_is_no_place_that_can_be_steered_cannot_be_hooked(hook):
    with pytest.raises(ValidationError, match="hook"):
        experiment_spec(hook=hook)


def test_every_field_of_every_kind_is_documented():
    for kind, model in SPEC_BY_KIND.items():
        whole = model.model_json_schema()
        parts = (schema for name, schema in whole["$defs"].items() if name != "JsonValue")
        for schema in (whole, *parts):
            assert schema["description"], f"{kind}: {schema['title']}"
            for name, field in schema["properties"].items():
                documented = "description" in field or "$ref" in field
                assert documented, f"{kind}: {schema['title']}.{name}"


def test_a_canonical_spec_reads_back_as_itself():
    spec = experiment_spec(steering={
        "prompts": texts("a"), "neutralText": texts("b"), "lexicon": texts("c"), "strengths": [1],
    })  # fmt: skip
    assert canonical("Experiment", spec) == spec
    assert spec["steering"]["strengths"] == [1.0]


def test_hard_negatives_caution_what_would_not_pass_with_them_in_the_place_of_neutral():
    rules = Selection()
    row = {"firing_rate_hard_negative": 0.2, "selectivity_hard_negative": 0.8}
    assert rules.caution(row) is None
    assert rules.caution({}) is None, "the spec names none"
    often = rules.caution(row | {"firing_rate_hard_negative": 0.21})
    assert often is not None and often.startswith("fires on 21% of the hard negatives")
    assert rules.caution(row | {"selectivity_hard_negative": 0.79}) is not None


def test_the_default_arms_are_a_written_list_that_a_new_arm_does_not_lengthen():
    spec = experiment_spec(steering={"prompts": texts("a"), "lexicon": texts("c")})
    steering = canonical("Experiment", spec)["steering"]
    assert steering["arms"] == [
        "none", "coarse", "fine", "multi", "coarsePair", "nonChildren", "randomLatent",
        "meanDifference", "random",
    ]  # fmt: skip
    assert (steering["randomDraws"], steering["samplesPerPrompt"]) == (10, 2)
    assert "neutralText" not in steering


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_an_annotation_of_ours_that_is_misspelt_is_refused_with_the_right_one(name):
    """Kept as a free note it would shield, pin or rank nothing, and nobody would know."""
    for wrong in (name[:-1], f"{name}ed", name.replace("dev/", "dev/x")):
        with pytest.raises(ValidationError, match=f"{wrong} is not known; did you mean {name}"):
            Metadata(name="x", annotations={wrong: "true"})
    assert Metadata(name="x", annotations={f"my.{name}ed": "true"}).annotations


@pytest.mark.parametrize("name", [PROTECT_ANNOTATION, PIN_ANNOTATION])
def test_a_shield_is_true_or_false_and_no_other_word(name):
    for word in ("True", "yes", "on", "1", "", " true"):
        with pytest.raises(ValidationError, match=r"expected .true. or .false."):
            Metadata(name="x", annotations={name: word})
    for word in ("true", "false"):
        assert Metadata(name="x", annotations={name: word}).annotations[name] == word
