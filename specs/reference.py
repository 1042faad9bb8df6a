"""Every field that people can write, described: for ``explain``, the reference page and hints.

All words come from the models: the meaning from a field's docstring, the rest from its type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypedDict, cast

from loopscope.specs.fields import Spec
from loopscope.specs.json_schema import STATUS, plain
from loopscope.specs.keys import API_VERSION
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.objects import Metadata

FieldSchema = TypedDict(
    "FieldSchema",
    {
        "$ref": str,
        "anyOf": "list[FieldSchema]",
        "type": str,
        "items": "FieldSchema",
        "additionalProperties": "FieldSchema | bool",
        "patternProperties": "dict[str, FieldSchema]",
        "enum": list[str],
        "const": str,
        "default": object,
        "description": str,
        "minimum": float,
        "exclusiveMinimum": float,
        "maximum": float,
        "exclusiveMaximum": float,
        "minLength": int,
        "maxLength": int,
        "minItems": int,
        "maxItems": int,
        "pattern": str,
        "x-unit": str,
    },
    total=False,
)
"""The JSON Schema of a field, as far as pydantic makes it of specs."""
Limit = Literal["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"]


class PartSchema(TypedDict, total=False):
    """The JSON Schema of a model."""

    description: str
    required: list[str]
    properties: dict[str, FieldSchema]


Definitions = dict[str, PartSchema]
ModelSchema = TypedDict(
    "ModelSchema",
    {
        "description": str,
        "required": list[str],
        "properties": dict[str, FieldSchema],
        "$defs": Definitions,
    },
    total=False,
)


@dataclass(frozen=True)
class FieldFacts:
    """One field, or a whole kind. Texts may hold single backticks.

    ``default`` is ``required``, ``none``, ``its defaults`` (those of its fields) or a JSON value
    in backticks. ``bounds`` and ``unit`` are empty where there are none. ``part`` names the model
    that the field holds; ``about`` and ``fields`` are that model's docstring and fields.
    """

    name: str
    type: str
    default: str
    bounds: str
    unit: str
    meaning: str
    part: str = ""
    about: str = ""
    fields: tuple[FieldFacts, ...] = ()

    def field(self, name: str) -> FieldFacts | None:
        """Return a field of this field, or None."""
        return next((field for field in self.fields if field.name == name), None)

    def below(self, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldFacts]]:
        """Yield every field below this one with its place, parents first."""
        for field in self.fields:
            inner = (*place, field.name)
            yield inner, field
            yield from field.below(inner)


@cache
def kind_facts(kind: str) -> FieldFacts:
    """Return a kind with all its fields. Raises KeyError for an unknown kind."""
    spec = model_facts(SPEC_BY_KIND[kind], "spec")
    fields = (
        FieldFacts("apiVersion", "text", "required", "", "", f"Always `{API_VERSION}`."),
        FieldFacts("kind", "text", "required", "", "", f"Always `{kind}`."),
        model_facts(Metadata, "metadata"),
        spec,
        FieldFacts("status", "any", "none", "", "", STATUS),
    )
    return FieldFacts(kind, "object", "", "", "", spec.about, kind, spec.about, fields)


def model_facts(model: type[Spec], name: str) -> FieldFacts:
    """Return a model as a required field called ``name``."""
    schema = cast(ModelSchema, model.model_json_schema(by_alias=True, mode="validation"))
    fields = _fields(schema, schema.get("$defs", {}))
    about = plain(schema["description"])
    return FieldFacts(name, "object", "required", "", "", about, model.__name__, about, fields)


def _fields(schema: ModelSchema | PartSchema, definitions: Definitions) -> tuple[FieldFacts, ...]:
    required = set(schema.get("required", ()))
    return tuple(
        _field(name, field, name in required, definitions)
        for name, field in schema.get("properties", {}).items()
    )


def _field(name: str, field: FieldSchema, required: bool, definitions: Definitions) -> FieldFacts:
    parts = [part for option in _options(field) if (part := _part(option))]
    part = parts[0] if parts else ""
    about = definitions[part]["description"] if part else ""
    return FieldFacts(
        name,
        " or ".join(_type_of(option) for option in _options(field)),
        "required" if required else _default(field),
        "; ".join(found for option in _options(field) for found in _bounds_of(option)),
        field.get("x-unit", ""),
        # The schema leaves a description out where it is the part's own.
        plain(field.get("description") or about),
        part,
        plain(about),
        _fields(definitions[part], definitions) if part else (),
    )


def _options(field: FieldSchema) -> list[FieldSchema]:
    return [option for option in field.get("anyOf", [field]) if option.get("type") != "null"]


def _part(option: FieldSchema) -> str:
    """Return the model that a value or the items of a list are of, or an empty string."""
    if option.get("type") == "array":
        return _part(option.get("items", {}))
    return str(option.get("$ref", "")).rpartition("/")[2]


def _type_of(option: FieldSchema) -> str:
    if "$ref" in option:
        return "object"
    if "enum" in option:
        return ", ".join(f"`{value}`" for value in option["enum"])
    if "const" in option:
        return f"`{option['const']}`"
    match option.get("type"):
        case "array":
            return f"list of {_type_of(option['items'])}"
        case "object":
            return f"map of text to {_type_of_values(option)}"
        case "string":
            return "text"
        case "boolean":
            return "true or false"
        case kind:
            return str(kind or "any")


def _type_of_values(option: FieldSchema) -> str:
    named = next(iter(option.get("patternProperties", {}).values()), None)
    found = option.get("additionalProperties") or named
    return _type_of(found) if isinstance(found, dict) and found.get("type") else "anything"


def _default(field: FieldSchema) -> str:
    if "default" not in field:  # made by a factory: an empty map
        return "none"
    value = field["default"]
    if isinstance(value, dict) and any("$ref" in option for option in _options(field)):
        return "its defaults"
    return "none" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _bounds_of(option: FieldSchema) -> Iterator[str]:
    low = _limit(option, "minimum", "≥", "exclusiveMinimum", ">")
    high = _limit(option, "maximum", "≤", "exclusiveMaximum", "<")
    if low or high:
        yield ", ".join(limit for limit in (low, high) if limit)
    if "maxLength" in option:
        yield f"{option.get('minLength', 0)} to {option['maxLength']:,} characters"
    if "minItems" in option or "maxItems" in option:
        most = f" to {option['maxItems']:,}" if "maxItems" in option else " or more"
        yield f"{option.get('minItems', 0)}{most} entries"
    if "pattern" in option:
        yield f"`{option['pattern']}`"
    if option.get("type") == "array":
        yield from (f"each {found}" for found in _bounds_of(option["items"]))


def _limit(option: FieldSchema, closed: Limit, at: str, open_: Limit, beyond: str) -> str:
    if closed in option:
        return f"{at} {option[closed]:g}" if option[closed] < 1e6 else f"{at} {option[closed]:,.0f}"
    return f"{beyond} {option[open_]:g}" if open_ in option else ""
