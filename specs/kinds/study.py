"""Study: one question asked of many concepts, each an Experiment of its own, and one answer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue, field_validator, model_validator

from loopscope.specs.fields import Spec, Texts, Unit
from loopscope.specs.kinds.capture import PromptSets
from loopscope.specs.stopping import why_not_early
from loopscope.specs.study import CONCEPT_FIELDS, CONCEPTS_MAX, WORD_PLACE
from loopscope.specs.texts.templates import places_of

StudyWord = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=30)
]
Word = Annotated[str, Field(min_length=1, max_length=200)]
Words = Annotated[tuple[Word, ...], Field(min_length=1, max_length=1000)]
FieldOfExperiment = Annotated[str, Field(min_length=1, max_length=100)]


class ConceptWords(Spec):
    """The words of a concept of a family."""

    words: Words
    """Stand in the family's templates, and count as words of the lexicon."""
    forms: tuple[Word, ...] = ()
    """Further words of the lexicon, such as plurals, that stand in no template."""


class Family(Spec):
    """Concepts of one kind: each is told from the others by the same templates."""

    templates: Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]
    """Prompts with ``{word}`` in them. Filled with a concept's words they are its target prompts;
    as many of those with words of siblings are its neutral ones. Prompts of one word belong
    together."""
    siblings: Words | None = None
    """Words of the kind that belong to none of the concepts, such as other countries. Left out, a
    concept's siblings are the words of the family's other concepts; a concept that is added is
    then a sibling of the others, so that these run again as well."""
    concepts: Annotated[dict[StudyWord, ConceptWords], Field(min_length=1)]
    """The concepts by name."""

    @field_validator("templates")
    @classmethod
    def _have_the_place(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if places_of(template) != [WORD_PLACE]:
                raise ValueError(
                    f"expected {{{WORD_PLACE}}} and no other name in braces; found "
                    f"{template[:60]!r}"
                )
        return templates

    @model_validator(mode="after")
    def _has_siblings(self) -> Family:
        if self.siblings is None and len(self.concepts) == 1:
            raise ValueError("a family of one concept needs siblings: nothing else is neutral")
        return self


class Concept(Spec):
    """What of an experiment belongs to a concept."""

    family: StudyWord
    """Concepts of one family are alike; a table groups them, and nothing rests on it."""
    prompts: PromptSets
    """The experiment's ``prompts``."""
    lexicon: Texts
    """The experiment's ``steering.lexicon``."""
    siblings: Texts | None = None
    """The experiment's ``steering.siblings``."""


class StudySpec(Spec):
    """One experiment for each of many concepts, and one answer: multi minus the better single."""

    experiment: Annotated[dict[FieldOfExperiment, JsonValue], Field(min_length=1)]
    """The fields of an Experiment, with ``steering``, that hold for every concept: all but
    ``prompts``, ``matrix``, ``steering.lexicon`` and ``steering.siblings``. Each concept draws with
    a seed of its own, made from ``steering.sampling.seed`` and its name."""
    families: Annotated[dict[StudyWord, Family], Field(min_length=1)] | None = None
    """A generator of concepts: word lists in templates, by family. What is stored are the concepts
    that it stands for."""
    concepts: dict[StudyWord, Concept] = Field(default_factory=dict)
    """Concepts that are listed, by name. Each becomes the Experiment ``<name>-<concept>``."""
    min_testable: Annotated[int, Field(ge=2, le=CONCEPTS_MAX), Unit("concepts")] = 12
    """With fewer concepts that could be tested the study's answer is Inconclusive."""

    @field_validator("experiment")
    @classmethod
    def _leaves_room_for_concepts(cls, given: dict[str, JsonValue]) -> dict[str, JsonValue]:
        steering = given.get("steering")
        if not isinstance(steering, dict):
            raise ValueError("expected steering: without it there is nothing to pool")
        if "stopEarly" in steering:
            raise ValueError(why_not_early("a study"))
        for path in (*CONCEPT_FIELDS, ("matrix",)):
            inside = steering if len(path) > 1 else given
            if path[-1] in inside:
                why = "a study has no matrix" if path == ("matrix",) else "it is the concept's own"
                raise ValueError(f"{'.'.join(path)}: {why}; remove it")
        return given

    @model_validator(mode="after")
    def _has_concepts(self) -> StudySpec:
        listed = list(self.concepts)
        made = [(name, one) for one, f in (self.families or {}).items() for name in f.concepts]
        for name, family in made:
            if name in listed:
                raise ValueError(
                    f"the concept {name} of family {family} is there already; keep one"
                )
            listed.append(name)
        if not listed:
            raise ValueError("expected families or concepts; found no concept")
        if len(listed) > CONCEPTS_MAX:
            raise ValueError(f"{len(listed)} concepts, expected at most {CONCEPTS_MAX}")
        return self
