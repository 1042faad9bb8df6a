"""The published JSON Schema says what the loader says, to editors and to an independent checker."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from loopscope.specs.errors import InvalidSpec
from loopscope.specs.json_schema import COMBINED, DIALECT, combined_schema, schema_files, schema_of
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.reference import kind_facts
from loopscope.specs.yaml.loading import load_text
from tests.fuzz.seeds import SPECS, document

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "schema"
EXAMPLES = sorted([*ROOT.glob("examples/*/experiment.yaml"), *ROOT.glob("examples/studies/*.yaml")])
BY_KIND = {kind: schema_of(kind) for kind in SPEC_BY_KIND}
ANY = combined_schema()
MODELINE = "# yaml-language-server: $schema="


class AnyFiles:
    """Files that are all there."""

    def content(self, file):
        return f"a text of {file}".encode()

    def locate(self, path):
        return f"/{path}"


def accepted_by_the_loader(value):
    try:
        return bool(load_text(yaml.safe_dump(value), "x.yaml", AnyFiles()))
    except InvalidSpec:
        return False


def accepted_by_the_schema(value, schema=None):
    return Draft202012Validator(schema or BY_KIND[value["kind"]]).is_valid(value)


def checked(*words):
    command = [sys.executable, "-m", "check_jsonschema", *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def changed(value, path, new):
    """Return a copy in which the field at ``path`` is ``new``."""
    copied = copy.deepcopy(value)
    *place, last = path.split(".")
    inner = copied
    for step in place:
        inner = inner.setdefault(step, {})
    inner[last] = new
    return copied


def test_the_published_schemas_are_what_the_models_generate():
    published = {path.name: path.read_text("utf-8") for path in PUBLISHED.iterdir()}
    assert published == schema_files(), "run: python -m loopscope schema --output docs/schema"


def test_every_schema_is_one_of_draft_2020_12_itself():
    for schema in (ANY, *BY_KIND.values()):
        assert schema["$schema"] == DIALECT
        Draft202012Validator.check_schema(schema)
    told = checked("--check-metaschema", *PUBLISHED.iterdir())
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_an_example_names_the_schema_of_its_kind(file):
    first = file.read_text("utf-8").splitlines()[0]
    assert first.startswith(MODELINE)
    named = (file.parent / first.removeprefix(MODELINE)).resolve()
    kind = yaml.safe_load(file.read_text("utf-8"))["kind"]
    assert named == PUBLISHED / f"{kind.lower()}.json"


@pytest.mark.parametrize("schema", ["experiment.json", f"{COMBINED}.json"])
def test_an_independent_checker_accepts_every_example(schema):
    told = checked("--schemafile", PUBLISHED / schema, *EXAMPLES)
    assert told.returncode == 0, told.stdout + told.stderr


def test_the_independent_checker_sees_a_misspelt_field_and_a_value_out_of_bounds(tmp_path):
    file = tmp_path / "x.yaml"
    bad = document("Experiment", {**SPECS["Experiment"], "maping": {}, "mapping": {"minCosine": 3}})
    file.write_text(yaml.safe_dump(bad))
    for schema in ("experiment.json", f"{COMBINED}.json"):
        told = checked("--schemafile", PUBLISHED / schema, file)
        assert told.returncode == 1 and "'maping' was unexpected" in told.stdout
        assert "3 is greater than the maximum of 1.0" in told.stdout


@pytest.mark.parametrize("kind", SPEC_BY_KIND)
def test_what_the_loader_accepts_the_schemas_accept(kind):
    value = document(kind)
    assert accepted_by_the_loader(value)
    assert accepted_by_the_schema(value) and accepted_by_the_schema(value, ANY)
    for variant in (
        changed(value, "status", {"conditions": []}),
        changed(value, "metadata.namespace", "team"),
        changed(value, "metadata.labels", {"loopscope.dev/x": ""}),
    ):
        assert accepted_by_the_loader(variant) and accepted_by_the_schema(variant)


LENIENT = {
    "spec.steering": None,
    "spec.prompts.hardNegatives": None,
    "spec.prompts.target": {"file": None, "texts": ["Paris is"]},
    "spec.model": {"name": "m", "source": {"hub": "a/b", "gguf": None}},
    "spec.dictionaries.coarse": {"path": None, "release": "gpt2-small-res-jb", "id": "x"},
    "spec.maxTokens": 64.0,
    "spec.mapping.minCosine": 1,
}


@pytest.mark.parametrize(("path", "new"), LENIENT.items(), ids=LENIENT)
def test_the_schema_is_no_stricter_than_the_loader(path, new):
    value = changed(document("Experiment"), path, new)
    assert accepted_by_the_loader(value) and accepted_by_the_schema(value)


WRONG = {
    "kind": "Experimnt",
    "apiVersion": "v1",
    "metadata.name": "X",
    "metadata.owner": "me",
    "extra": 1,
    "spec.slection": {},
    "spec.hook": "blocks.1.hook_q",
    "spec.positions": "lasst",
    "spec.maxTokens": "64",
    "spec.maxTokens ": 64,
    "spec.mapping.minCosine": 1.5,
    "spec.mapping.topK": 1.5,
    "spec.gate": 3,
    "spec.prompts.target": {"texts": ["a"], "file": "b.txt"},
    "spec.prompts.neutral": {},
    "spec.model": {"name": "m", "source": {"hub": "a/b", "gguf": "c"}},
    "spec.dictionaries.fine": {"release": "r"},
    "spec.steering.strengths": ["0.5"],
    "spec.steering.arms": [],
    "spec.steering.sampling.greedy": "yes",
}


@pytest.mark.parametrize(("path", "new"), WRONG.items(), ids=WRONG)
def test_what_one_file_can_show_to_be_wrong_is_refused_by_both(path, new):
    value = changed(document("Experiment"), path, new)
    assert not accepted_by_the_loader(value)
    assert not accepted_by_the_schema(value, BY_KIND["Experiment"])
    assert not accepted_by_the_schema(value, ANY)


def test_a_field_of_another_kind_is_refused_by_the_combined_schema():
    value = changed(document("Capture"), "spec.dictionary", {"path": "coarse"})
    assert not accepted_by_the_schema(value, ANY)


def test_descriptions_carry_the_units_and_no_markup_of_docstrings():
    field = BY_KIND["Experiment"]["$defs"]["MappingRules"]["properties"]["minCosine"]
    assert field["description"] == "Least decoder cosine of a child. Unit: cosine."
    assert not any("``" in text or "x-unit" in text for text in schema_files().values())


@pytest.mark.parametrize("kind", SPEC_BY_KIND)
def test_every_field_of_every_kind_has_a_meaning_and_a_type(kind):
    fields = list(kind_facts(kind).below())
    assert len(fields) > 8
    assert not [".".join(place) for place, field in fields if not (field.meaning and field.type)]
