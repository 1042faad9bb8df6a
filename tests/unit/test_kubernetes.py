"""Manifests and definitions of kinds, checked without a cluster."""

import importlib.util
import re
from pathlib import Path

import jsonschema
import pytest
import typer
import yaml

from loopscope.cli import application
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.pipeline import SHORT_BY_KIND

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "kubernetes"
FORBIDDEN = {
    "$ref", "definitions", "$defs", "deprecated", "discriminator", "id", "patternProperties",
    "readOnly", "writeOnly", "xml", "oneOf", "anyOf", "allOf", "not", "if", "const",
}  # fmt: skip
"""Words that a structural schema may not have, or may have in part only."""


def generator():
    given = importlib.util.spec_from_file_location("crds", ROOT / "docs/generate_crds.py")
    module = importlib.util.module_from_spec(given)
    given.loader.exec_module(module)
    return module


def documents(name):
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


CRDS = {one["spec"]["names"]["kind"]: one for one in documents("crds.yaml")}


def schema_of(kind):
    (version,) = CRDS[kind]["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def test_the_committed_definitions_are_those_of_the_schemas():
    expected = generator().render()
    committed = (FOLDER / "crds.yaml").read_text(encoding="utf-8")
    assert committed == expected, "run python docs/generate_crds.py"


@pytest.mark.parametrize("kind", SPEC_BY_KIND)
def test_a_definition_is_named_as_kubernetes_wants_and_shows_columns(kind):
    crd = CRDS[kind]
    spec, (version,) = crd["spec"], crd["spec"]["versions"]
    assert crd["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
    assert spec["names"]["shortNames"] == [SHORT_BY_KIND[kind]] and spec["scope"] == "Namespaced"
    columns = {column["name"]: column["jsonPath"] for column in version["additionalPrinterColumns"]}
    assert {"Ready", "Reason", "Age"} <= set(columns)
    assert ("Verdict" in columns) == (kind == "Experiment")
    assert version["subresources"] == {"status": {}}


@pytest.mark.parametrize("kind", SPEC_BY_KIND)
def test_a_schema_is_structural(kind):
    def walk(schema, place):
        assert not FORBIDDEN & set(schema), (place, FORBIDDEN & set(schema))
        opened = schema.get("x-kubernetes-preserve-unknown-fields")
        assert "type" in schema or opened, place
        assert not ("properties" in schema and "additionalProperties" in schema), place
        if schema.get("type") == "array":
            assert "items" in schema, place
        for name, field in schema.get("properties", {}).items():
            walk(field, f"{place}.{name}")
        for name in ("items", "additionalProperties"):
            if isinstance(schema.get(name), dict):
                walk(schema[name], f"{place}[]")

    walk(schema_of(kind), kind)


def test_a_rule_in_cel_names_fields_that_are_there():
    found = []

    def walk(schema):
        for rule in schema.get("x-kubernetes-validations", ()):
            found.append(rule)
            assert set(re.findall(r"self\.(\w+)", rule["rule"])) <= set(schema["properties"])
        for field in schema.get("properties", {}).values():
            walk(field)
        for name in ("items", "additionalProperties"):
            if isinstance(schema.get(name), dict):
                walk(schema[name])

    walk(schema_of("Experiment"))
    assert len(found) >= 4 and all("give one of" in rule["message"] for rule in found)


EXAMPLES = sorted(
    path
    for path in (ROOT / "examples").rglob("*.yaml")
    if "kubernetes" not in path.parts and "apiVersion: loopscope" in path.read_text()
)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_example_is_valid_by_them(path):
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        jsonschema.Draft4Validator(schema_of(document["kind"])).validate(document)


@pytest.mark.parametrize(
    "change",
    [
        {"hook": 7},
        {"prompts": "none"},
        {"steering": {"samples": 0}},
        {"model": {}},
    ],
)
def test_what_is_wrong_is_refused_by_them(change):
    document = yaml.safe_load(
        (ROOT / "examples/france/experiment.yaml").read_text(encoding="utf-8")
    )
    document["spec"] |= change
    validator = jsonschema.Draft4Validator(schema_of("Experiment"))
    assert not validator.is_valid(document)


def test_the_container_is_started_with_options_that_the_program_has():
    (deployment,) = [one for one in documents("controller.yaml") if one["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    program = typer.main.get_command(application())
    words = [word.partition("=")[0] for word in container["args"]]
    before, after = words[: words.index("controller")], words[words.index("controller") + 1 :]
    assert set(before) <= {option for one in program.params for option in one.opts}
    known = {option for one in program.commands["controller"].params for option in one.opts}
    assert set(after) <= known
    assert f"--metrics-port={container['ports'][0]['containerPort']}" in container["args"]
    paths = {container[name]["httpGet"]["path"] for name in ("livenessProbe", "readinessProbe")}
    assert paths == {"/healthz", "/readyz"}


def test_what_a_manifest_names_is_there_or_is_the_readers_own():
    found = [one for name in ("controller.yaml", "raycluster.yaml") for one in documents(name)]
    there = {(one["kind"], one["metadata"]["name"]) for one in found}
    text = "".join((FOLDER / name).read_text() for name in ("controller.yaml", "raycluster.yaml"))
    for kind, pattern in (
        ("ConfigMap", r"configMap: \{name: ([\w-]+)"),
        ("PersistentVolumeClaim", r"claimName: ([\w-]+)"),
    ):
        assert {(kind, name) for name in re.findall(pattern, text)} <= there
    secrets = set(re.findall(r"secret(?:KeyRef|Ref): \{name: ([\w-]+)", text))
    assert all(f"secret generic {name}" in text for name in secrets)
    assert {one["metadata"]["namespace"] for one in found} == {"loopscope"}


def test_the_limits_of_the_manifest_are_limits(tmp_path):
    from loopscope.controller.config import load_config

    (given,) = [one for one in documents("controller.yaml") if one["kind"] == "ConfigMap"]
    path = tmp_path / "limits.conf"
    path.write_text(given["data"]["limits.conf"])
    assert load_config(path).settings()["free_space_floor_bytes"] == 2 * 2**30
