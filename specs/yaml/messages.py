"""Messages of validation errors: expected, found, did you mean."""

from __future__ import annotations

import re

from pydantic_core import ErrorDetails

from loopscope.specs.fields import NAME_PATTERN, SHA256_PATTERN
from loopscope.specs.hooks import HOOK_PATTERN, STREAMS, Hook, all_hooks
from loopscope.specs.reference import FieldFacts
from loopscope.specs.suggest import closest, did_you_mean

FOUND_CHARACTERS_MAX = 80
_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
}
_BOUNDS = {
    "greater_than_equal": "at least",
    "greater_than": "more than",
    "less_than_equal": "at most",
    "less_than": "less than",
}
_PATTERNS = {
    NAME_PATTERN: "lower-case letters, digits and '-', first and last a letter or a digit",
    SHA256_PATTERN: "the 64 hexadecimal digits of a sha256, in lower case",
}


def message_of(error: ErrorDetails, kind: FieldFacts, place: tuple[int | str, ...]) -> str:
    """Return one sentence for one of pydantic's errors, at ``place`` of an object of ``kind``."""
    known = _facts_at(kind, place)
    context = error.get("ctx", {})
    found = f"found {short(error['input'])}"
    match error["type"]:
        case "extra_forbidden":
            return f"unknown field{_other_field(kind, place)}"
        case "missing":
            return f"required, but not given{_what_is_expected(known)}"
        case "model_type" | "model_attributes_type":
            return f"expected a mapping{_with_fields(known)}; {found}"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"expected {context['expected']}, {found}{_other_value(error, known)}"
        case "string_pattern_mismatch":
            return _pattern_message(str(error["input"]), context["pattern"])
        case "string_too_short" | "string_too_long":
            limit = context.get("min_length", context.get("max_length"))
            most = "least" if "min_length" in context else "most"
            return f"expected at {most} {limit:,} characters, found {len(error['input']):,}"
        case "too_short" | "too_long":
            limit = context.get("min_length", context.get("max_length"))
            most = "least" if "min_length" in context else "most"
            return f"expected at {most} {limit:,} entries, found {context['actual_length']}"
        case type_ if type_ in _BOUNDS:
            limit = next(iter(context.values()))
            return f"expected {_BOUNDS[type_]} {_number(limit)}, {found}"
        case type_ if type_ in _TYPES:
            scalar = isinstance(error["input"], int | float)
            quotes = "; put it in quotes" if type_ == "string_type" and scalar else ""
            return f"expected {_TYPES[type_]}, {found}{quotes}"
        case _:
            return f"{error['msg'][0].lower()}{error['msg'][1:]}; {found}"


def short(value: object) -> str:
    """Return a value as it is shown in a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= FOUND_CHARACTERS_MAX else f"{text[: FOUND_CHARACTERS_MAX - 3]}..."


def hook_message(name: str) -> str:
    """Return what is wrong with the name of a hook, and which was probably meant."""
    layer = re.search(r"\d+", name)
    parts = name.replace("hook_", "").split(".")
    close = next(
        filter(None, (closest(".".join(parts[i:]), list(STREAMS), cutoff=0.75) for i in (-2, -1))),
        None,
    )
    meant = str(Hook(int(layer[0]), close)) if layer and close else name
    hint = f"; did you mean {meant!r}?" if meant != name else ""
    return f"expected {all_hooks()} (no other hook is supported), found {short(name)}{hint}"


def _pattern_message(text: str, pattern: str) -> str:
    if pattern == HOOK_PATTERN:
        return hook_message(text)
    return f"expected {_PATTERNS.get(pattern, f'text that matches {pattern}')}, found {short(text)}"


def _other_value(error: ErrorDetails, known: FieldFacts | None) -> str:
    values = re.findall(r"`([^`]+)`", known.type) if known else []
    close = closest(str(error["input"]), values)
    return f"; did you mean {close!r}?" if close else ""


def _other_field(kind: FieldFacts, place: tuple[int | str, ...]) -> str:
    """Return which field was probably meant: one beside it, or one of that name elsewhere."""
    parent = _facts_at(kind, place[:-1])
    name = str(place[-1])
    names = [field.name for field in parent.fields] if parent else []
    if closest(name, names) is None:
        wanted = name.replace("_", "").lower()
        elsewhere = [".".join(path) for path, f in kind.below() if f.name.lower() == wanted]
        if elsewhere:
            return f" here; did you mean {' or '.join(elsewhere)}?"
    return did_you_mean(name, names)


def _number(value: float) -> str:
    return f"{int(value) if value == int(value) else value:,}"


def _with_fields(known: FieldFacts | None) -> str:
    names = ", ".join(field.name for field in known.fields) if known else ""
    return f" with {names}" if names else ""


def _what_is_expected(known: FieldFacts | None) -> str:
    if known is None:
        return ""
    if known.fields:
        return f"; expected a mapping{_with_fields(known)}"
    return f"; expected {known.type}: {known.meaning}".replace("`", "").removesuffix(".")


def _facts_at(kind: FieldFacts, place: tuple[int | str, ...]) -> FieldFacts | None:
    facts: FieldFacts | None = kind
    for step in place:
        if isinstance(step, str) and facts is not None:
            facts = facts.field(step)
    return facts
