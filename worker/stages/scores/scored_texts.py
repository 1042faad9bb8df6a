"""Texts as an outcome gets them, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loopscope.specs.artifacts.scores import JudgeRecord
from loopscope.specs.artifacts.steering import SAMPLES
from loopscope.specs.payloads.scores import ScoresPayload
from loopscope.specs.ratings import Rated
from loopscope.state.failures import TerminalFailure
from loopscope.worker.stages.tables import read_columns


@dataclass(frozen=True)
class ScoredText:
    """A generated text with its place, the opening that it goes on from, and its tokens."""

    place: Rated
    opening: str
    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """One answer of a judge, as ``judge_answers.parquet`` has it."""

    question: str
    text_sha256: str
    order: str
    answer: str
    said: str
    served: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Measured:
    """What an outcome makes of texts: ``columns`` [texts], NaN where unknown, and what is behind.

    ``model`` names what measured, where that is a model.
    """

    columns: dict[str, list[float]]
    model: str | None = None
    answers: Sequence[Answer] = ()
    judge: JudgeRecord | None = field(default=None)


def texts_of(payload: ScoresPayload, steered: Path) -> list[ScoredText]:
    """Return the texts of a steering, in its order.

    Raises TerminalFailure ``InputMismatch`` for a text of an opening that is not asked about.
    """
    openings = {opening["id"]: opening["text"] for opening in payload["openings"]}
    table = read_columns(steered / SAMPLES.name)
    rows = zip(*(table[column.name] for column in SAMPLES.columns), strict=True)
    found: list[ScoredText] = []
    for prompt_id, arm, strength, sample, text, tokens in rows:
        if prompt_id not in openings:
            raise TerminalFailure("InputMismatch", f"{prompt_id} is no opening of the steering")
        place = Rated(str(prompt_id), str(arm), float(strength), int(sample))
        numbers = tuple(int(token) for token in tokens)
        found.append(ScoredText(place, openings[prompt_id], str(text), numbers))
    return found
