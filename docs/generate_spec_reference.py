"""Write ``docs/spec.md`` from the spec models: ``python docs/generate_spec_reference.py``.

Types, defaults and bounds come from the models' JSON Schema, meanings from their attribute
docstrings. A test compares the committed page with what this script returns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specs.keys import API_VERSION
from specs.kinds import SPEC_BY_KIND
from specs.objects import Metadata

PAGE = Path(__file__).parent / "spec.md"

UNITS = {
    "maxTokens": "tokens",
    "maxNewTokens": "tokens",
    "strengths": "`strengthUnit`",
    "minFiringRateTarget": "share of prompts",
    "maxFiringRateNeutral": "share of prompts",
    "minDifference": "concept score",
    "minCosine": "cosine",
    "partialCosine": "cosine",
    "maxArmCosine": "cosine",
    "minCorrelation": "Pearson r",
    "minSelectivity": "selectivity",
    "minFineSelectivity": "selectivity",
    "maxQ": "q-value",
    "top": "latents",
    "topK": "pairs",
    "Sampling.topK": "tokens",
    "topP": "probability",
    "minSubfeatures": "fine latents",
    "permutations": "permutations",
    "nullAnchors": "coarse latents",
    "minPercentile": "percentile",
    "resamples": "resamples",
    "minStability": "share of resamples",
    "randomDraws": "directions",
    "samplesPerPrompt": "samples",
    "discover": "weight",
    "test": "weight",
    "calibrate": "weight",
}
"""What a number counts, by field (with its model where two differ); others have no unit."""

HEADER = f"""# Spec reference

Generated from the models in `specs/` by `docs/generate_spec_reference.py`; do not edit by hand.

An object is one YAML document:

```yaml
apiVersion: {API_VERSION}
kind: Experiment        # or Capture, Decomposition, Mapping, Steering
metadata: {{name: france}}
spec: {{}}                # the fields below
```

A file may hold several documents. Unknown fields, duplicate keys, YAML aliases and merge keys are
refused with file, line, column and field. A `status` in the file is accepted and ignored.
*Required* means that there is no default. A field without a unit is a name, a choice or a plain
number.

Paths are relative to the YAML that names them. Text files must lie under the root (`--root`; by
default the git checkout that holds the YAML, else the current folder or the YAML's own); weights
may lie anywhere.

An Experiment owns `<name>-capture`, `<name>-coarse`, `<name>-fine`, `<name>-mapping` and, if
`steering` is given, `<name>-steering`. Each kind can also be applied on its own; then the
references (`captureRef`, `coarseRef`, `fineRef`, `mappingRef`) name objects of the same namespace.

Checks that reach across fields, all made before anything is stored:

- `metadata.name` has at most 52 characters, so that the names of the owned objects stay valid.
- `file` and `texts` exclude one another, and at least one text must be there. Texts are not blank
  and differ (case and spacing aside); no prompt is in two of the sets target, neutral and
  hardNegatives, and no opening of an Experiment's steering is a prompt. A text file has at most
  16 MiB, a YAML file 4 MiB with at most 100,000 values.
- With `splits.test` above 0 every condition keeps at least 5 prompts on either side; `calibrate`
  needs `test` above 0 and at least 2 openings.
- A model `source` names exactly one of `package`, `gguf`, `folder`, `hub`; a dictionary either
  `path`, or `release` with `id`. `revision` belongs to a hub name, `sha256` of a model to a GGUF.
- `aggregation: max` and `mean` need `positions: all`; `partialCosine` does not exceed `minCosine`;
  `arms` and `strengths` hold no value twice.
- No word of `lexicon` occurs in an opening, in `neutralText` or, in an Experiment, in more than 1 %
  of the neutral prompts; no word counts as lexicon and as `siblings`.
- Each condition of an Experiment has at least 5 prompts, unless `selection.maxQ` is 1.
- As far as local files and SAELens' registry tell: files exist and have the declared sha256, the
  model has the hook, each dictionary has the model's width and the spec's hook, the tokenizer has a
  BOS token, and the coarse dictionary has no more latents than the fine one. What needs a hub is
  checked when the name is resolved; a misfit then stalls the stage.
"""


def render() -> str:
    """Return the page."""
    pages = {"metadata": Metadata, **SPEC_BY_KIND}
    shown: set[str] = set()
    parts = [HEADER]
    for title, model in pages.items():
        schema = model.model_json_schema(by_alias=True, mode="validation")
        definitions = schema.get("$defs", {})
        parts.extend(_section(2, title, schema, definitions))
        if title == "metadata":
            continue
        for name in _reachable(schema, definitions):
            if name not in shown:
                shown.add(name)
                parts.extend(_section(3, name, definitions[name], definitions))
    return "\n".join(parts).rstrip() + "\n"


def _section(
    level: int, title: str, schema: dict[str, Any], definitions: dict[str, Any]
) -> Iterator[str]:
    yield f"{'#' * level} {title}\n"
    yield f"{_plain(schema['description'])}\n"
    yield "| field | type | default | bounds | unit | meaning |"
    yield "|---|---|---|---|---|---|"
    required = set(schema.get("required", ()))
    for name, field in schema["properties"].items():
        cells = (
            f"`{name}`",
            _type(field),
            "required" if name in required else _default(field),
            _bounds(field),
            UNITS.get(f"{title}.{name}", UNITS.get(name, "")),
            _plain(_meaning(field, definitions)),
        )
        yield "| " + " | ".join(cells) + " |"
    yield ""


def _meaning(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return a field's docstring; the schema leaves it out where it is its part's own."""
    part = _part(_options(field)[0])
    return str(
        field.get("description") or definitions[part]["description"]
        if part
        else field["description"]
    )


def _reachable(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[str]:
    """Yield the parts of a schema in the order in which its fields name them."""
    for field in schema["properties"].values():
        for option in _options(field):
            name = _part(option)
            if name is not None:
                yield name
                yield from _reachable(definitions[name], definitions)


def _options(field: dict[str, Any]) -> list[dict[str, Any]]:
    return [o for o in field.get("anyOf", [field]) if o.get("type") != "null"]


def _part(option: dict[str, Any]) -> str | None:
    reference = option.get("$ref")
    return str(reference).rpartition("/")[2] if reference else None


def _type(field: dict[str, Any]) -> str:
    return " or ".join(_type_of(option) for option in _options(field))


def _type_of(option: dict[str, Any]) -> str:
    name = _part(option)
    if name is not None:
        return f"[{name}](#{name.lower()})"
    if "enum" in option:
        return ", ".join(f"`{value}`" for value in option["enum"])
    match option.get("type"):
        case "array":
            return f"list of {_type_of(option['items'])}"
        case "object":
            return "map of text to text"
        case "string":
            return "text"
        case "boolean":
            return "true or false"
        case kind:
            return str(kind)


def _default(field: dict[str, Any]) -> str:
    if any(_part(option) for option in _options(field)):
        return "none" if field.get("default", {}) is None else "its defaults"
    value = field.get("default")
    return "none" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _bounds(field: dict[str, Any]) -> str:
    return "; ".join(found for option in _options(field) for found in _bounds_of(option))


def _bounds_of(option: dict[str, Any]) -> Iterator[str]:
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
        yield "`" + option["pattern"].replace("|", "\\|") + "`"
    if option.get("type") == "array":
        yield from (f"each {found}" for found in _bounds_of(option["items"]))


def _limit(option: dict[str, Any], closed: str, at: str, open_: str, beyond: str) -> str:
    if closed in option:
        return f"{at} {option[closed]:g}" if option[closed] < 1e6 else f"{at} {option[closed]:,.0f}"
    return f"{beyond} {option[open_]:g}" if open_ in option else ""


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
