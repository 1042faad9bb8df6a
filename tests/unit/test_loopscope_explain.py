"""``explain`` and ``schema``: what can be written, asked for by name."""

import json

import pytest

from loopscope.explanation import page_of
from loopscope.specs.json_schema import COMBINED, schema_files
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.reference import kind_facts


@pytest.mark.parametrize("word", ["experiment", "Experiment", "exp", "experiments"])
def test_a_field_is_explained_with_type_default_bounds_unit_and_meaning(loopscope, word):
    code, out, _ = loopscope("explain", f"{word}.spec.mapping.minCosine")
    lines = [line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  ")]
    assert code == 0
    assert lines[:4] == [
        ["Type:", "number"], ["Default:", "0.3"], ["Bounds:", "≥ 0, ≤ 1"], ["Unit:", "cosine"],
    ]  # fmt: skip
    assert out.endswith("DESCRIPTION:\n    Least decoder cosine of a child.\n")


def test_an_inner_field_lists_the_fields_below_it(loopscope):
    _, out, _ = loopscope("explain", "mapping.spec.gate")
    for name in ("rule <one of cosine, strict>", "minSubfeatures <integer>  3  (fine latents)"):
        assert f"\n  {name}" in out
    assert "matched anchors" in out.replace("\n    ", " "), "what a gate is, too"


def test_all_fields_below_are_listed_on_demand(loopscope):
    _, out, _ = loopscope("explain", "experiment", "--recursive")
    listed = [line.strip() for line in out.splitlines()]
    for _, field in kind_facts("Experiment").below():
        assert any(line.startswith(f"{field.name} <") for line in listed)


def test_a_field_that_takes_a_word_or_an_object_shows_the_word_that_is_its_default(loopscope):
    _, out, _ = loopscope("explain", "experiment.spec.positions")
    assert "one of last, all," in out
    assert 'Default:  "last"' in out


@pytest.mark.parametrize("kind", SPEC_BY_KIND)
def test_every_field_can_be_explained(kind):
    for place, field in kind_facts(kind).below():
        page = " ".join("\n".join(page_of(kind, list(place))).split())
        assert " ".join(field.meaning.replace("`", "").split()) in page


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("experimnt", "did you mean 'experiment'?"),
        ("experiment.specs", "did you mean 'spec'?"),
        ("experiment.spec.mapping.minCosin", "did you mean 'minCosine'?"),
        ("experiment.spec.mapping.MINCOSINE", "did you mean 'minCosine'?"),
        ("experiment.spec.minCosine", "did you mean mapping.minCosine?"),
        ("experiment.minCosine", "did you mean spec.mapping.minCosine?"),
        ("experiment.spec.hook.name", "spec.hook has no fields"),
        ("experiment.spec.zzz", "known: model, hook"),
        ("experiment..spec", "has no field ''"),
    ],
)
def test_a_misspelt_path_is_answered_with_what_was_probably_meant(loopscope, path, words):
    code, out, err = loopscope("explain", path)
    assert (code, out) == (2, "") and words in err


@pytest.mark.parametrize("words", [(), ("experiment",), ("dec",)])
def test_a_schema_is_printed_as_json(loopscope, words):
    name = {(): COMBINED, ("experiment",): "experiment", ("dec",): "decomposition"}[words]
    code, out, _ = loopscope("schema", *words)
    assert code == 0 and out == schema_files()[f"{name}.json"]
    assert json.loads(out)["$schema"].endswith("2020-12/schema")


def test_all_schemas_are_written_into_a_folder(loopscope, tmp_path):
    code, out, _ = loopscope("schema", "--output", "a/b")
    assert code == 0 and len(out.splitlines()) == len(schema_files())
    for name, text in schema_files().items():
        assert (tmp_path / "a" / "b" / name).read_text("utf-8") == text


def test_a_schema_of_no_kind_is_refused(loopscope):
    code, _, err = loopscope("schema", "mapings")
    assert code == 2 and "did you mean 'mappings'?" in err
    assert loopscope("schema", "mapping", "-o", "x")[0] == 2
