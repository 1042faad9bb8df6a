"""A study's concepts: the experiment that each stands for, and the generator of families.

Plain JSON in, plain JSON out. A concept's experiment is the study's, with the fields that belong to
the concept put in and a seed of its own: under equal seeds all concepts would draw the same random
numbers, and their errors would be alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from loopscope.specs.sweep import Location, replaced, value_at

if TYPE_CHECKING:
    from loopscope.specs.json_values import Json, JsonObject
    from loopscope.specs.spec_json import ConceptJson, FamilyJson, StudyJson

CONCEPTS_MAX = 256
WORD_PLACE = "word"
"""The name in a template's braces that a word of a concept takes."""
CONCEPT_FIELDS: tuple[tuple[str, ...], ...] = (
    ("prompts",),
    ("steering", "lexicon"),
    ("steering", "siblings"),
)
"""The fields of an experiment that its concept sets; each has its last step's name there."""
_SEED = ("steering", "sampling", "seed")
_SEEDS = 2**32


@dataclass(frozen=True)
class ConceptExperiment:
    """A concept of a study, and the experiment that it stands for."""

    name: str
    family: str
    spec: JsonObject


def concept_names(name: str, spec: Mapping[str, Json]) -> list[str]:
    """Return the names of a study's experiments, by concept."""
    return [f"{name}-{concept}" for concept in sorted(study_of(spec)["concepts"])]


def study_of(spec: Mapping[str, Json]) -> StudyJson:
    """Return the spec of a study by its type."""
    return cast("StudyJson", spec)


def concept_experiments(spec: Mapping[str, Json]) -> list[ConceptExperiment]:
    """Return what a stored study stands for, by family and name."""
    study = study_of(spec)
    return [
        ConceptExperiment(
            name,
            concept["family"],
            replaced(
                experiment_of(study["experiment"], concept),
                _SEED,
                seed_of(_seed(study["experiment"]), name),
            ),
        )
        for name, concept in _by_family(study["concepts"])
    ]


def experiment_of(template: Mapping[str, Json], concept: ConceptJson) -> JsonObject:
    """Return a study's experiment with the fields of a concept put in."""
    filled: JsonObject = dict(template)
    for path in CONCEPT_FIELDS:
        given = cast("JsonObject", concept).get(path[-1])
        if given is not None:
            filled = replaced(filled, path, given)
    return filled


def seed_of(seed: int, concept: str) -> int:
    """Return the seed of a concept's draws."""
    digest = hashlib.sha256(f"{seed}\0{concept}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _SEEDS


def origin(concept: str, place: Location) -> Location:
    """Return where in a study's spec the field at ``place`` of a concept's experiment stands."""
    for path in CONCEPT_FIELDS:
        if place[: len(path)] == path:
            return ("concepts", concept, path[-1], *place[len(path) :])
    return ("experiment", *place)


def generated(families: Mapping[str, FamilyJson]) -> dict[str, JsonObject]:
    """Return the concepts of families as they would be listed, their texts still to be made."""
    return {
        name: {"family": family, **_concept(name, given)}
        for family, given in families.items()
        for name in given["concepts"]
    }


def _concept(name: str, family: FamilyJson) -> JsonObject:
    own = family["concepts"][name]
    targets = len(family["templates"]) * len(own["words"])
    neutral, siblings = _siblings(name, family)
    size = min(targets, len(family["templates"]) * len(neutral))
    return {
        "prompts": {
            "target": _filled(family["templates"], own["words"]),
            "neutral": {
                **_filled(family["templates"], neutral),
                "sample": {"size": size, "seed": 0},
            },
        },
        "lexicon": {"texts": [*own["words"], *own["forms"]]},
        "siblings": {"texts": siblings},
    }


def _siblings(name: str, family: FamilyJson) -> tuple[list[Json], list[Json]]:
    """Return the words that fill neutral prompts, and the siblings' lexicon."""
    if "siblings" in family:
        return [*family["siblings"]], [*family["siblings"]]
    others = [words for other, words in family["concepts"].items() if other != name]
    neutral = [word for words in others for word in words["words"]]
    lexicon = [word for words in others for word in (*words["words"], *words["forms"])]
    return [*neutral], [*lexicon]


def _filled(templates: Sequence[str], words: Sequence[Json]) -> JsonObject:
    return {
        "templates": [*templates],
        "lists": {WORD_PLACE: [*words]},
        "groups": {"column": WORD_PLACE},
    }


def _by_family(concepts: Mapping[str, ConceptJson]) -> list[tuple[str, ConceptJson]]:
    return sorted(concepts.items(), key=lambda item: (item[1]["family"], item[0]))


def _seed(template: JsonObject) -> int:
    return int(cast("int", value_at(template, ".".join(_SEED))))
