"""A matrix is checked cell by cell, and what is wrong is told where it was written."""

import textwrap

import pytest
import yaml

from loopscope.specs import sweep
from loopscope.specs.errors import InvalidSpec
from loopscope.specs.kinds.experiment import ExperimentSpec
from loopscope.specs.yaml.loading import load_path
from tests.simulated import experiment_spec

FRANCE = {"target": {"texts": ["Paris"]}, "neutral": {"texts": ["Rome"]}}
WEATHER = {"target": {"file": "rain.txt"}, "neutral": {"texts": ["Table"]}}
MATRIX = {
    "concept": {"france": {}, "weather": {"prompts": WEATHER}},
    "hook": {
        "l2": {"hook": "blocks.2.hook_resid_post"},
        "l3": {"hook": "blocks.3.hook_resid_post"},
    },
    "pooling": {"last": {"aggregation": "last"}, "max": {"aggregation": "max"}},
}
SPEC = {
    "model": {"name": "tiny"},
    "hook": "blocks.2.hook_resid_post",
    "prompts": FRANCE,
    "positions": "all",
    "dictionaries": {"coarse": {"release": "r", "id": "a"}, "fine": {"release": "r", "id": "b"}},
    "matrix": MATRIX,
}


@pytest.fixture
def load(tmp_path):
    (tmp_path / "rain.txt").write_text("Rain fell\nSnow fell\n")

    def load(name="s", matrix=MATRIX, **changes):
        spec = {**SPEC, "matrix": matrix, **changes}
        head = f"apiVersion: loopscope.dev/v1alpha1\nkind: Experiment\nmetadata: {{name: {name}}}\n"
        body = textwrap.indent(yaml.safe_dump(spec, sort_keys=False), "  ")
        path = tmp_path / "x.yaml"
        path.write_text(f"{head}spec:\n{body}")
        (item,) = load_path(path, tmp_path)
        return item.manifest.canonical_spec()

    return load


@pytest.fixture
def refused(load):
    def refused(*args, **changes):
        with pytest.raises(InvalidSpec) as invalid:
            load(*args, **changes)
        return [(problem.field, problem.message) for problem in invalid.value.problems]

    return refused


def test_a_matrix_stands_for_every_combination_in_name_order(load):
    spec = load()
    assert sweep.cell_names("s", spec) == [
        f"s-{concept}-{hook}-{pooling}"
        for concept in ("france", "weather")
        for hook in ("l2", "l3")
        for pooling in ("last", "max")
    ]
    turned = {axis: dict(reversed(MATRIX[axis].items())) for axis in reversed(MATRIX)}
    assert sweep.cell_names("s", load(matrix=turned)) == sweep.cell_names("s", spec)


def test_each_cell_is_the_canonical_spec_that_it_would_have_by_itself(load):
    found = {cell.suffix: cell.spec for cell in sweep.cells(load())}
    assert len(found) == 8
    for spec in found.values():
        assert ExperimentSpec.model_validate(spec).canonical() == spec
        assert "matrix" not in spec
    cell = found["weather-l3-max"]
    assert cell["hook"] == "blocks.3.hook_resid_post" and cell["aggregation"] == "max"
    assert cell["prompts"]["target"]["texts"] == ["Rain fell", "Snow fell"]
    assert found["france-l2-last"]["prompts"]["target"]["texts"] == ["Paris"]


def test_a_field_is_replaced_as_a_whole_and_its_neighbours_stay():
    base = {"mapping": {"topK": 4, "minCosine": 0.3}, "matrix": {"cut": {}}}
    base["matrix"]["cut"] = {"low": {"mapping.minCosine": 0.1}, "own": {"mapping": {"topK": 9}}}
    low, own = sweep.cells(base)
    assert low.spec == {"mapping": {"topK": 4, "minCosine": 0.1}}
    assert own.spec == {"mapping": {"topK": 9}}
    assert base["mapping"] == {"topK": 4, "minCosine": 0.3}


def test_an_edit_of_a_prompt_file_is_an_edit_of_the_spec(load, tmp_path):
    before = load()
    (tmp_path / "rain.txt").write_text("Hail fell\n")
    assert load() != before


def test_what_is_stored_loads_again_as_it_is(load):
    spec = load()
    assert ExperimentSpec.model_validate(spec).canonical() == spec


def test_a_value_that_is_wrong_is_told_once_and_where_it_stands(refused):
    matrix = {**MATRIX, "hook": {"l2": {"hook": "blocks.2.hook_resid_post"}, "l3": {"hook": "l3"}}}
    ((field, message),) = refused(matrix=matrix)
    assert field == "spec.matrix.hook.l3.hook" and "found 'l3'" in message


def test_a_misspelt_field_is_told_with_what_was_meant(refused):
    matrix = {"cut": {"low": {"mapping.minCosin": 0.1}}}
    ((field, message),) = refused(matrix=matrix)
    assert field == "spec.matrix.cut.low.mapping.minCosin"
    assert message == "unknown field; did you mean 'minCosine'?"


def test_a_missing_file_of_a_value_is_told_where_it_stands(refused):
    prompts = {"target": {"file": "no.txt"}, "neutral": {"texts": ["Table"]}}
    ((field, message),) = refused(matrix={"concept": {"w": {"prompts": prompts}}})
    assert field.startswith("spec.matrix.concept.w.prompts.target") and "no such file" in message


def test_values_that_do_not_go_together_name_the_cell(refused):
    ((field, message),) = refused(positions="last")
    assert field == "spec.matrix"
    assert message == "aggregation max needs positions: all (in france-l2-max)"


@pytest.mark.parametrize(
    ("matrix", "field", "words"),
    [
        (
            {"a": {"x": {"prompts": WEATHER}}, "b": {"y": {"prompts.target": {"texts": ["Oslo"]}}}},
            "spec.matrix.b.y.prompts.target",
            "matrix.a.x sets prompts already",
        ),
        (
            {"a": {"x-y": {"hook": "blocks.1.hook_resid_pre"}, "x": {}}, "b": {"z": {}, "y-z": {}}},
            "spec.matrix",
            "would both be named s-x-y-z",
        ),
        ({"a": {"x": {"matrix": {}}}}, "spec.matrix.a.x.matrix", "cannot hold a matrix"),
        ({"a": {"x": {"steering": None}}}, "spec.matrix.a.x.steering", "expected a value"),
        (
            {"a": {"x": {"prompts.target.file": "rain.txt"}}},
            "spec.matrix.a.x.prompts.target.file",
            "write prompts.target: {file: …}",
        ),
        (
            {f"a{n}": {f"v{m}": {} for m in range(7)} for n in range(3)},
            "spec.matrix",
            "343 combinations, expected at most 256",
        ),
        ({"a": {"v" * 30: {}}, "b": {"w" * 30: {}}}, "spec.matrix", "at most 52; use shorter"),
        ({}, "spec.matrix", "at least 1"),
        ({"a": {}}, "spec.matrix.a", "at least 1"),
        ({"a": {"X": {}}}, "spec.matrix.a.X.[key]", "lower-case letters"),
        ({"a": {"x": {"Hook": 1}}}, "spec.matrix.a.x.Hook.[key]", "text that matches"),
    ],
)
def test_a_matrix_that_cannot_be_expanded_is_refused(refused, matrix, field, words):
    found = refused(matrix=matrix)
    assert any(where == field and words in message for where, message in found), found


def test_a_sweep_without_cells_is_no_sweep():
    assert sweep.cell_names("france", experiment_spec()) == []


def test_a_verdict_is_asked_to_hold_over_axes_of_the_matrix_alone(load, refused):
    spec = load(holdOver=["pooling", "hook"])
    assert spec["holdOver"] == ["pooling", "hook"]
    assert all("holdOver" not in cell.spec for cell in sweep.cells(spec))
    ((_, message),) = refused(holdOver=["pooling", "sampling"])
    assert (
        "holdOver names the axis sampling of matrix: its axes are concept, hook, pooling" in message
    )
