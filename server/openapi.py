"""OpenAPI documents, from which ``kubectl`` explains fields and knows what may be patched."""

from __future__ import annotations

from functools import cache

from loopscope.server.answers import GROUP, VERSION
from loopscope.server.resources import RESOURCES, Resource
from loopscope.specs.json_schema import STATUS, combined_schema, plain
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import API_VERSION
from loopscope.specs.kinds import SPEC_BY_KIND

PATH = f"apis/{API_VERSION}"
PROTOBUF_V2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""The one form of version 2 that clients ask for; no bytes of it are a valid, empty document."""
_REFERENCE, _SCHEMAS = "#/$defs/", "#/components/schemas/"


def index() -> JsonObject:
    """Return what ``/openapi/v3`` says: one document, of our group."""
    return {"paths": {PATH: {"serverRelativeURL": f"/openapi/v3/{PATH}"}}}


@cache
def document() -> JsonObject:
    """Return the document of our group: the schemas of all kinds, and where each is patched."""
    definitions = combined_schema()["$defs"]
    assert isinstance(definitions, dict)
    schemas = {name: _open(schema) for name, schema in definitions.items()}
    paths: JsonObject = {}
    for resource in RESOURCES.values():
        schemas[resource.kind] = _kind(resource)
        paths[f"/{PATH}/namespaces/{{namespace}}/{resource.plural}/{{name}}"] = _operations(
            resource
        )
    return {
        "openapi": "3.0.0",
        "info": {"title": "Loopscope", "version": VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _kind(resource: Resource) -> JsonObject:
    spec = SPEC_BY_KIND[resource.kind]
    return {
        "type": "object",
        "description": plain(spec.__doc__ or ""),
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the format."},
            "kind": {"type": "string", "description": "What this object is."},
            "metadata": {"$ref": f"{_SCHEMAS}Metadata"},
            "spec": {"$ref": f"{_SCHEMAS}{spec.__name__}"},
            "status": {"type": "object", "description": STATUS},
        },
        "x-kubernetes-group-version-kind": [_kind_words(resource)],
    }


def _operations(resource: Resource) -> JsonObject:
    schema: JsonObject = {"$ref": f"{_SCHEMAS}{resource.kind}"}
    validation: JsonObject = {
        "name": "fieldValidation",
        "in": "query",
        "schema": {"type": "string", "uniqueItems": True},
    }
    answer: JsonObject = {
        "200": {"description": "OK", "content": {"application/json": {"schema": schema}}}
    }
    common: JsonObject = {
        "responses": answer,
        "x-kubernetes-group-version-kind": _kind_words(resource),
    }
    return {
        "get": {**common, "x-kubernetes-action": "get"},
        "patch": {**common, "x-kubernetes-action": "patch", "parameters": [validation]},
    }


def _kind_words(resource: Resource) -> JsonObject:
    return {"group": GROUP, "version": VERSION, "kind": resource.kind}


def _open(schema: Json) -> Json:
    """Return a JSON Schema as OpenAPI 3.0 has it: no ``const``, and null as ``nullable``."""
    if isinstance(schema, list):
        return [_open(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made: JsonObject = {}
    for keyword, value in schema.items():
        if keyword == "properties" and isinstance(value, dict):
            made[keyword] = {name: _open(field) for name, field in value.items()}
        elif keyword == "$ref" and isinstance(value, str):
            made[keyword] = value.replace(_REFERENCE, _SCHEMAS)
        elif keyword == "const":
            made["enum"] = [value]
        elif keyword == "oneOf" and "properties" in schema:
            pass  # which fields go together is checked by the loader, in better words
        elif keyword == "anyOf" and isinstance(value, list):
            made |= _any_of(value)
        else:
            made[keyword] = value if keyword in ("default", "enum") else _open(value)
    return made


def _any_of(alternatives: list[Json]) -> JsonObject:
    """Return alternatives; where one is null and one is left, that one, which may be null."""
    others = [one for one in alternatives if one != {"type": "null"}]
    if len(others) == len(alternatives):
        return {"anyOf": _open(others)}
    if len(others) > 1:
        return {"anyOf": _open(others), "nullable": True}
    only = _open(others[0])
    assert isinstance(only, dict)
    return {"allOf": [only], "nullable": True} if "$ref" in only else {**only, "nullable": True}
