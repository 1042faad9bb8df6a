"""The CustomResourceDefinitions in ``examples/kubernetes/crds.yaml``, written by this script.

``python docs/generate_crds.py``. They come from the schemas of the kinds, as Kubernetes wants them:
structural, so references are put in place, and what a structural schema cannot say (unions of
types, patterns of names) is left to the loader, which says it in better words. Of fields of which
one must be given a rule in CEL says so. A test compares the file with what this script returns.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from loopscope.server.answers import GROUP, VERSION
from loopscope.server.resources import CATEGORY, RESOURCES, Resource
from loopscope.specs.json_schema import STATUS, combined_schema
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.kinds import SPEC_BY_KIND

FILE = Path(__file__).parents[1] / "examples" / "kubernetes" / "crds.yaml"
KEPT = frozenset(
    [
        "type",
        "description",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "pattern",
        "enum",
        "minItems",
        "maxItems",
        "required",
        "minProperties",
        "maxProperties",
    ]
)
"""Words of JSON Schema that a structural schema has too, with the same meaning."""
ANYTHING: JsonObject = {"x-kubernetes-preserve-unknown-fields": True}
COLUMNS = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason'),
)
ANSWERS = (
    ("Gate", "string", ".status.summary.gate"),
    ("Verdict", "string", ".status.summary.verdict"),
)
AGE = ("Age", "date", ".metadata.creationTimestamp")


def render() -> str:
    """Return all definitions as YAML documents."""
    definitions = combined_schema()["$defs"]
    assert isinstance(definitions, dict)
    found = [_definition(resource, definitions) for resource in RESOURCES.values()]
    head = "# Written by docs/generate_crds.py from the schemas of the kinds.\n"
    return head + yaml.safe_dump_all(found, sort_keys=False, width=100, explicit_start=True)


def _definition(resource: Resource, definitions: JsonObject) -> JsonObject:
    answers = ANSWERS if resource.kind == "Experiment" else ()
    columns: list[Json] = [
        {"name": name, "type": kind, "jsonPath": path}
        for name, kind, path in (*COLUMNS, *answers, AGE)
    ]
    spec = structural(definitions[SPEC_BY_KIND[resource.kind].__name__], definitions)
    schema: JsonObject = {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": {"type": "object", "description": STATUS, **ANYTHING},
        },
    }
    names: JsonObject = {
        "kind": resource.kind,
        "listKind": f"{resource.kind}List",
        "plural": resource.plural,
        "singular": resource.kind.lower(),
        "shortNames": [resource.short],
        "categories": [CATEGORY],
    }
    version: JsonObject = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def structural(schema: Json, definitions: JsonObject) -> JsonObject:
    """Return a schema without references, unions and words that Kubernetes refuses."""
    assert isinstance(schema, dict)
    if isinstance(reference := schema.get("$ref"), str):
        target = structural(definitions[reference.rpartition("/")[2]], definitions)
        return {**target, **{k: v for k, v in schema.items() if k == "description"}}
    if isinstance(alternatives := schema.get("anyOf"), list):
        return _union(schema, alternatives, definitions)
    made: JsonObject = {word: value for word, value in schema.items() if word in KEPT}
    if "const" in schema:
        made["enum"] = [schema["const"]]
    if isinstance(minimum := schema.get("exclusiveMinimum"), (int, float)):
        made |= {"minimum": minimum, "exclusiveMinimum": True}
    if isinstance(maximum := schema.get("exclusiveMaximum"), (int, float)):
        made |= {"maximum": maximum, "exclusiveMaximum": True}
    if isinstance(properties := schema.get("properties"), dict):
        made["properties"] = {n: structural(f, definitions) for n, f in properties.items()}
    if "items" in schema:
        made["items"] = structural(schema["items"], definitions)
    if isinstance(rule := _one_of(schema), str):
        made["x-kubernetes-validations"] = [_rule(rule, schema)]
    return _opened(made, schema, definitions)


def _opened(made: JsonObject, schema: JsonObject, definitions: JsonObject) -> JsonObject:
    """Let an object have the names that its schema does not list."""
    if made.get("type") != "object" or "properties" in made:
        return made if "type" in made else {**made, **ANYTHING}
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        return {**made, "additionalProperties": structural(more, definitions)}
    return {**made, **ANYTHING}


def _union(schema: JsonObject, alternatives: list[Json], definitions: JsonObject) -> JsonObject:
    """Return the one alternative that is not null, or what may be anything."""
    others = [one for one in alternatives if one != {"type": "null"}]
    said: JsonObject = {k: v for k, v in schema.items() if k == "description"}
    if len(others) > 1:
        return {**said, **ANYTHING}
    only = structural(others[0], definitions)
    return {**only, **said, **({"nullable": True} if len(others) < len(alternatives) else {})}


def _one_of(schema: JsonObject) -> str | None:
    """Return the rule in CEL that one of several groups of fields is given, and no other."""
    alternatives = schema.get("oneOf")
    if not isinstance(alternatives, list):
        return None
    names = [one["required"] for one in alternatives if isinstance(one, dict)]
    first = [str(group[0]) for group in names if isinstance(group, list)]
    counted = " + ".join(f"(has(self.{name}) && self.{name} != null ? 1 : 0)" for name in first)
    return f"{counted} == 1" if len(first) == len(alternatives) else None


def _rule(rule: str, schema: JsonObject) -> JsonObject:
    alternatives = schema["oneOf"]
    assert isinstance(alternatives, list)
    names = [
        " with ".join(str(name) for name in one["required"])
        for one in alternatives
        if isinstance(one, dict) and isinstance(one["required"], list)
    ]
    return {"rule": rule, "message": f"give one of {', '.join(names)}"}


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(render(), encoding="utf-8")
