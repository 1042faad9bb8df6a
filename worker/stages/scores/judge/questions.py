"""Questions to a judge, and what an answer says."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, cast

from loopscope.specs.canonical import digest
from loopscope.specs.json_values import JsonObject

Order = Literal["yes-no", "no-yes"]
ORDERS: tuple[Order, ...] = ("yes-no", "no-yes")
_ANSWER = re.compile(
    r"""[\s*"'`(\[]*(?:(?:the\s+)?answer\s*(?:is)?\s*[:=]?\s*)?[*"'`(\[]*
    (?:(?P<letter>[AB])[*"'`)\].:,\s-]*(?P<beside>yes|no)?|(?P<word>yes|no))[*"'`)\].!\s]*""",
    re.IGNORECASE | re.VERBOSE,
)


class AskedOfJudge(TypedDict):
    """What a judge's answers depend on beside the text; all of it enters the digest."""

    model: str
    question: str
    prompt: str
    maxAnswerTokens: int


@dataclass(frozen=True)
class Question:
    """One request: a text, the order of the two answers, and the words that are sent."""

    text: str
    order: Order
    words: str
    asked: AskedOfJudge

    @property
    def digest(self) -> str:
        """Stands for the model's name and all that is sent; answers are kept by it."""
        return digest(self.body())

    @property
    def text_sha256(self) -> str:
        """Stands for the text that is asked about."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    def body(self) -> JsonObject:
        """Return the request as the endpoint gets it."""
        return {
            "model": self.asked["model"],
            "messages": [{"role": "user", "content": self.words}],
            "temperature": 0,
            "max_tokens": self.asked["maxAnswerTokens"],
        }


def questions_of(texts: Sequence[str], asked: JsonObject) -> list[Question]:
    """Return two questions for each different text that can be seen, in the order of the texts."""
    settings = cast(AskedOfJudge, asked)
    different = dict.fromkeys(text for text in texts if text.strip())
    return [
        Question(text, order, _filled(settings, text, order), settings)
        for text in different
        for order in ORDERS
    ]


def _filled(asked: AskedOfJudge, text: str, order: Order) -> str:
    """Return the prompt with its places filled; what is put in is not looked at for places."""
    first, second = order.split("-")
    values = {"text": text, "question": asked["question"], "first": first, "second": second}
    return re.sub(
        r"\{(text|question|first|second)\}", lambda match: values[match[1]], asked["prompt"]
    )


def said(answer: str, order: str) -> str:
    """Return ``yes`` or ``no``, or nothing where an answer does not plainly say one of them.

    A letter alone, with its word beside it, or the word alone; a letter beside the other word says
    nothing, nor does anything that follows.
    """
    found = _ANSWER.fullmatch(answer)
    if found is None:
        return ""
    if found["word"]:
        return found["word"].lower()
    word = order.split("-")[0 if found["letter"].upper() == "A" else 1]
    beside = (found["beside"] or word).lower()
    return word if beside == word else ""
