"""Checks of a study while a file is loaded: every concept must be a valid experiment by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

from pydantic import ValidationError

from loopscope.specs import study
from loopscope.specs.fields import FileReader
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.kinds.experiment import ExperimentSpec
from loopscope.specs.kinds.study import StudySpec
from loopscope.specs.spec_json import ConceptJson, FamilyJson
from loopscope.specs.sweep import Location
from loopscope.specs.yaml.sweep_loading import (
    INVALID_CELLS_MAX,
    NAME_CHARACTERS_MAX,
    Refusal,
    RememberedFiles,
)


@dataclass(frozen=True)
class InvalidConcept:
    """A concept whose experiment is not valid; ``error`` has its problems, field by field."""

    name: str
    error: ValidationError
    family: str | None = None
    """The family that it was made from; None for one that is listed."""

    def place(self, location: Location) -> Location:
        """Return where in the study's spec a problem of the experiment comes from."""
        found = study.origin(self.name, location)
        if found[0] == "experiment" or self.family is None:
            return found
        return ("families", self.family, "concepts", self.name)


@dataclass
class CanonicalStudy:
    """A study as it is stored; whole only if no concept is invalid."""

    spec: StudySpec
    invalid: list[InvalidConcept] = field(default_factory=list)


def name_problems(name: str, spec: StudySpec) -> Iterator[Refusal]:
    """Yield the concepts whose experiments would have too long a name."""
    made = {c: ("families", f, "concepts", c) for f, one in (spec.families or {}).items()
            for c in one.concepts}  # fmt: skip
    listed: dict[str, Location] = {c: ("concepts", c) for c in spec.concepts}
    for concept, place in {**made, **listed}.items():
        whole = f"{name}-{concept}"
        if len(whole) > NAME_CHARACTERS_MAX:
            yield (
                place,
                f"its experiment would be named {whole}, which has {len(whole)} characters, "
                f"expected at most {NAME_CHARACTERS_MAX}; use shorter names",
            )


def canonical_study(
    spec: StudySpec, given: JsonObject, files: FileReader, *, exported: bool
) -> CanonicalStudy:
    """Return a study with the concepts of its families listed, texts in place and defaults.

    ``given`` is the spec as it stands in the file. ``exported``: ``get`` printed it.
    """
    context = {"files": RememberedFiles(files), "exported": exported}
    template = cast(JsonObject, given["experiment"])
    families = cast(dict[str, FamilyJson], spec.canonical().get("families", {}))
    listed = cast(dict[str, JsonObject], given.get("concepts") or {})
    made = study.generated(families)
    concepts: dict[str, JsonObject] = {}
    found = CanonicalStudy(spec)
    whole: JsonObject = {}
    for name, raw in {**made, **listed}.items():
        asked = study.experiment_of(template, cast(ConceptJson, raw))
        try:
            checked = ExperimentSpec.model_validate(asked, context=context)
        except ValidationError as error:
            family = str(raw["family"]) if name in made else None
            found.invalid.append(InvalidConcept(name, error, family))
            if len(found.invalid) >= INVALID_CELLS_MAX:
                break
            continue
        whole = checked.canonical()
        concepts[name] = {"family": raw["family"], **_of_concept(whole)}
    if not found.invalid:
        found.spec = StudySpec.model_validate(
            {"experiment": _without_concept(whole), "concepts": concepts,
             "minTestable": spec.min_testable}
        )  # fmt: skip
    return found


def _of_concept(spec: JsonObject) -> JsonObject:
    made: JsonObject = {}
    for path in study.CONCEPT_FIELDS:
        inside: Json = spec
        for step in path:
            inside = inside.get(step) if isinstance(inside, dict) else None
        if inside is not None:
            made[path[-1]] = inside
    return made


def _without_concept(spec: JsonObject) -> JsonObject:
    """Return an experiment's spec without what its concept sets: the same for every concept."""
    steering = cast(JsonObject, spec["steering"])
    left = {name: value for name, value in spec.items() if (name,) not in study.CONCEPT_FIELDS}
    own = {n: v for n, v in steering.items() if ("steering", n) not in study.CONCEPT_FIELDS}
    return {**left, "steering": own}
