"""JSON Schema of what people write: one for each kind, and one for all of them.

For editors and for checks in other tools. It never refuses what the loader accepts of that; checks
that reach across fields and files are the loader's alone. What ``get -o yaml`` prints beyond it (a
``uid``, ``texts`` beside ``file``, ``kind: List``) can be applied, but should not be written.
"""

from __future__ import annotations

import json

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from loopscope.specs.fields import UNIT_KEYWORD, Spec
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import API_VERSION
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.objects import Metadata

DIALECT = "https://json-schema.org/draft/2020-12/schema"
COMBINED = "loopscope"
"""The name of the schema that covers every kind, beside the kinds' own."""
STATUS = "What was observed. The controller writes it; in a file it is ignored."


def schema_of(kind: str) -> JsonObject:
    """Return the schema of one YAML document of this kind. Raises KeyError for an unknown kind."""
    spec = SPEC_BY_KIND[kind]
    definitions = _definitions([spec])
    return {
        "$schema": DIALECT,
        "title": f"Loopscope {kind}",
        "description": plain(spec.__doc__ or ""),
        **_envelope({"const": kind}, _reference(spec)),
        "$defs": definitions,
    }


def combined_schema() -> JsonObject:
    """Return the schema of one YAML document of any kind; ``kind`` decides what ``spec`` holds."""
    return {
        "$schema": DIALECT,
        "title": "Loopscope",
        "description": f"An object of {API_VERSION}.",
        **_envelope({"enum": list(SPEC_BY_KIND)}, {"type": "object"}),
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": {"properties": {"spec": _reference(spec)}},
            }
            for kind, spec in SPEC_BY_KIND.items()
        ],
        "$defs": _definitions(list(SPEC_BY_KIND.values())),
    }


def schema_files() -> dict[str, str]:
    """Return every schema as a file: name -> JSON text. The same code gives the same bytes."""
    schemas = {kind.lower(): schema_of(kind) for kind in SPEC_BY_KIND}
    schemas[COMBINED] = combined_schema()
    return {f"{name}.json": as_text(schema) for name, schema in schemas.items()}


def as_text(schema: JsonObject) -> str:
    """Return a schema as the text of a file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _envelope(kind: JsonObject, spec: JsonObject) -> JsonObject:
    return {
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"const": API_VERSION, "description": "Version of the format."},
            "kind": {**kind, "description": "What this object is."},
            "metadata": _reference(Metadata),
            "spec": spec,
            "status": {"description": STATUS},
        },
    }


def _reference(model: type[Spec]) -> JsonObject:
    return {"$ref": f"#/$defs/{model.__name__}"}


def _definitions(models: list[type[Spec]]) -> JsonObject:
    every: list[type[BaseModel]] = [Metadata, *models]
    asked: list[tuple[type[BaseModel], JsonSchemaMode]] = [(one, "validation") for one in every]
    _, schema = models_json_schema(asked, by_alias=True)
    definitions: JsonObject = schema["$defs"]
    return {name: _readable(part) for name, part in definitions.items()}


def _readable(schema: Json) -> Json:
    """Return a schema as editors show it best: text on one line with its unit, no made-up titles.

    Only the schema's own keywords are touched, not fields that bear the same name.
    """
    if isinstance(schema, list):
        return [_readable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made: JsonObject = {}
    for keyword, value in schema.items():
        if keyword == "properties" and isinstance(value, dict):
            made[keyword] = {name: _readable(field) for name, field in value.items()}
        elif keyword not in ("title", UNIT_KEYWORD):
            made[keyword] = value if keyword == "default" else _readable(value)
    if "description" in made:
        unit = f" Unit: {schema[UNIT_KEYWORD]}." if UNIT_KEYWORD in schema else ""
        made["description"] = plain(f"{made['description']}{unit}")
    return made


def plain(text: str) -> str:
    """Return a docstring as one line with single backticks."""
    return " ".join(text.replace("``", "`").split())
