"""Rules about generated texts as they are stored: outcomes, and what steering damages."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from loopscope.specs.texts_json import TextsJson


class WordsJson(TypedDict):
    """A lexicon with word forms and negation."""

    lexicon: TextsJson
    forms: Literal["exact", "inflected"]
    negations: NotRequired[TextsJson]
    negationReach: int


class EmbeddingJson(TypedDict):
    """A concept among its siblings, in sentences."""

    concept: TextsJson
    siblings: TextsJson
    threshold: float


class PriceJson(TypedDict):
    """What a million tokens cost."""

    input: float
    output: float


class JudgeJson(TypedDict):
    """A language model that is asked about texts, and how."""

    endpoint: str
    model: str
    question: str
    prompt: str
    maxAnswerTokens: int
    apiKeyVariable: NotRequired[str]
    requestsPerMinute: int
    maxRequests: int
    price: NotRequired[PriceJson]
    maxCost: NotRequired[float]


class HumanRatingsJson(TypedDict):
    """Ratings by people, as reports saved them."""

    files: list[str]
    sets: list[str]


class ScoringRulesJson(TypedDict):
    """By which outcomes texts are told apart, and which one leads."""

    primary: Literal["concept", "words", "embedding", "judge", "ratings"]
    repetition: bool
    words: NotRequired[WordsJson]
    embedding: NotRequired[EmbeddingJson]
    judge: NotRequired[JudgeJson]
    ratings: NotRequired[HumanRatingsJson]


class DamageRulesJson(TypedDict):
    """What is tried under each arm beside what it is for."""

    text: NotRequired[TextsJson]
    sides: NotRequired[dict[str, TextsJson]]
    maxLoss: NotRequired[float]
