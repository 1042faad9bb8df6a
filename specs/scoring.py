"""The rules of a scoring: by which outcomes generated texts are told apart, and which one leads."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from loopscope.specs.fields import Spec, Texts, Unit, file_reader
from loopscope.specs.lexicon import check_apart
from loopscope.specs.ratings import read_ratings

Primary = Literal["concept", "words", "embedding", "judge", "ratings"]
ENDPOINT_PATTERN = r"^https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~\-/]*)?$"
VARIABLE_PATTERN = r"^[A-Z][A-Z0-9_]{0,99}$"
NEGATIONS = (
    "not", "no", "never", "nor", "neither", "none", "without", "nothing", "cannot", "hardly",
    "isn't", "aren't", "wasn't", "weren't", "don't", "doesn't", "didn't", "won't", "can't",
    "couldn't", "wouldn't", "shouldn't", "hasn't", "haven't", "hadn't",
)  # fmt: skip
"""The words that negate what follows them, where a spec lists none."""
JUDGE_PROMPT = """\
Read the text between the lines and answer one question about it.
---
{text}
---
Question: {question}
A: {first}
B: {second}
Answer with the letter A or B alone."""
"""What a judge is asked; ``first`` and ``second`` are *yes* and *no*, once in either order."""
PLACES = ("{text}", "{question}", "{first}", "{second}")


class Words(Spec):
    """A lexicon of its own, with forms of its words and with negation.

    Accents, case and white space do not count, and a word may be a phrase, as in
    ``steering.lexicon``.
    """

    lexicon: Texts
    """Words that mark a text as being about the concept; matched as whole words."""
    forms: Literal["exact", "inflected"] = "inflected"
    """``inflected``: English endings count as well (``baker``: ``bakers``, ``baker's``; ``city``:
    ``cities``); ``exact``: the words as they stand."""
    negations: Texts | None = None
    """Words that negate what follows them; by default 25 packaged English ones. A mention with one
    of them among the ``negationReach`` words before it does not count."""
    negation_reach: Annotated[int, Field(ge=0, le=20), Unit("words")] = 3
    """How many words before a mention are looked at, within its sentence; 0 looks at none."""


class Embedding(Spec):
    """How near a text is to a concept in the space of sentences of all-MiniLM-L6-v2.

    The score is its cosine to the concept minus the mean cosine to the siblings. It needs the extra
    ``embedding``, and no network.
    """

    concept: Texts
    """Sentences or words that stand for the concept; their mean direction counts."""
    siblings: Texts
    """Each stands for a concept of the same kind (for France: Germany, Japan)."""
    threshold: Annotated[float, Field(ge=-1.0, le=1.0), Unit("difference of cosines")] = 0.0
    """Above it a text counts as being about the concept (``embedding_hit``)."""


class Price(Spec):
    """What an endpoint takes for a million tokens, in whatever currency ``maxCost`` is in."""

    input: Annotated[float, Field(ge=0.0), Unit("currency a million tokens")]
    """For tokens that are sent."""
    output: Annotated[float, Field(ge=0.0), Unit("currency a million tokens")]
    """For tokens that are answered."""


class Judge(Spec):
    """A language model behind an endpoint of the shape of OpenAI's chat completions.

    Each different text is asked about twice, with the two answers in either order; the score is the
    share of *yes*. Off unless the machine allows the endpoint (``LOOPSCOPE_JUDGE_ENDPOINTS``).
    """

    endpoint: Annotated[str, Field(pattern=ENDPOINT_PATTERN, max_length=500)]
    """Address up to ``/chat/completions``, for example ``http://127.0.0.1:8080/v1``."""
    model: Annotated[str, Field(min_length=1, max_length=200)]
    """The model's name there. Answers are kept by it: a name that stands for other weights one day
    is another judge, so name a version."""
    question: Annotated[str, Field(min_length=1, max_length=2_000)]
    """A question about the text that *yes* or *no* answers (``Is the text about France?``)."""
    prompt: Annotated[str, Field(min_length=1, max_length=10_000)] = JUDGE_PROMPT
    """What is sent, with {text}, {question}, {first} and {second} in it; answered by A or B."""
    max_answer_tokens: Annotated[int, Field(ge=1, le=1_000), Unit("tokens")] = 8
    """Longest answer."""
    api_key_variable: Annotated[str, Field(pattern=VARIABLE_PATTERN)] | None = None
    """Name of the environment variable that holds the key; the key itself is stored nowhere."""
    requests_per_minute: Annotated[int, Field(ge=1, le=60_000), Unit("requests a minute")] = 60
    """Requests are started no faster than this."""
    max_requests: Annotated[int, Field(ge=1, le=1_000_000), Unit("requests")] = 2_000
    """Nothing is asked where more than this would be."""
    price: Price | None = None
    """What tokens cost; needed for ``maxCost``."""
    max_cost: Annotated[float, Field(gt=0.0), Unit("currency")] | None = None
    """No request is started that could bring the cost of this scoring above this."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> Judge:
        missing = [place for place in PLACES if place not in self.prompt]
        if missing:
            raise ValueError(f"prompt lacks {', '.join(missing)}; each must stand in it")
        if self.max_cost is not None and self.price is None:
            raise ValueError("maxCost needs price: without it no cost is known")
        return self


class HumanRatings(Spec):
    """What people said of the texts in the report's blind mode; the mean over raters."""

    files: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]
    """What reports saved after rating, JSON or CSV, relative to the YAML."""
    sets: tuple[str, ...] = ()
    """What the files hold; written by Loopscope when they are read."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any, info: ValidationInfo) -> Any:
        reader = file_reader(info)
        if reader is None or not isinstance(data, dict) or not isinstance(data.get("files"), list):
            return data
        if data.get("sets") and not (info.context or {}).get("exported"):
            raise ValueError("sets is written by Loopscope when files are read; remove it")
        if data.get("sets"):
            return data
        found = []
        for name in data["files"]:
            try:
                ratings = read_ratings(reader.content(name).decode("utf-8-sig"))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            found.append(ratings.canonical_text)
        return {**data, "sets": found}

    @model_validator(mode="after")
    def _of_different_people(self) -> HumanRatings:
        raters: list[tuple[str, str]] = []
        for text in self.sets:
            found = read_ratings(text)
            raters.append((found.rater, found.date))
        if len(set(raters)) != len(raters):
            raise ValueError("files holds the ratings of one person at one time twice; keep one")
        return self


class ScoringRules(Spec):
    """Outcomes of texts that were generated already: nothing is generated again for them.

    Each is measured once for all who ask the same of the same texts. ``primary`` is declared; all
    others are secondary, and their p are corrected together by Holm's procedure.
    """

    primary: Primary = "concept"
    """The outcome that answers: ``concept`` is the word list of the steering. ``embedding`` answers
    only where ``ratings`` show on these texts that it tells them apart."""
    repetition: bool = True
    """How much a text repeats itself (distinct n-grams, compression). Perplexity does not show it:
    loops are likely."""
    words: Words | None = None
    """A lexicon with word forms and negation."""
    embedding: Embedding | None = None
    """Nearness to the concept among its siblings."""
    judge: Judge | None = None
    """Answers of a language model."""
    ratings: HumanRatings | None = None
    """Ratings by people, from the report's blind mode."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> ScoringRules:
        named = ("repetition", "words", "embedding", "judge", "ratings")
        if not any(getattr(self, name) for name in named):
            raise ValueError(f"scoring asks for no outcome; give one of {', '.join(named)}")
        if self.primary != "concept" and getattr(self, self.primary) is None:
            raise ValueError(f"primary is {self.primary}, which is not given beside it")
        if self.primary == "embedding" and self.ratings is None:
            raise ValueError(
                "primary is embedding, which was not validated: it may answer only beside ratings "
                "of these texts by people, which show whether it tells them apart; give ratings"
            )
        if self.embedding is not None:
            check_apart(self.embedding.concept.texts, self.embedding.siblings.texts)
        return self
