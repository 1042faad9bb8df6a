"""The outcome *judge*: each different text is asked about twice, and every answer is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from loopscope.inputs.files import default_cache
from loopscope.specs.artifacts.scores import JudgeRecord
from loopscope.specs.outcomes_json import PriceJson
from loopscope.specs.payloads.scores import ScoresPayload
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.stages.scores.judge.endpoint import Clock, Endpoint
from loopscope.worker.stages.scores.judge.kept import KeptAnswers
from loopscope.worker.stages.scores.judge.questions import (
    ORDERS,
    AskedOfJudge,
    Question,
    questions_of,
    said,
)
from loopscope.worker.stages.scores.scored_texts import Answer, Measured, ScoredText

QUESTIONS_PER_SHARD = 16
FRAME_TOKENS = 64
"""What a chat template may add to what is sent, at most."""
_MILLION = 1e6


class Way(TypedDict):
    """How a judge is reached, and how far one may go; changes no answer."""

    endpoint: str
    apiKeyVariable: NotRequired[str]
    requestsPerMinute: int
    maxRequests: int
    price: NotRequired[PriceJson]
    maxCost: NotRequired[float]


@dataclass
class Spending:
    """What was spent, and whether one more question could bring it above what is allowed."""

    price: PriceJson | None
    allowed: float | None
    spent: float = 0.0

    def check(self, question: Question) -> None:
        """Raise TerminalFailure ``JudgeTooDear`` where a question could cost too much.

        A token is at least a byte, so the bytes that are sent bound the tokens.
        """
        if self.price is None or self.allowed is None:
            return
        sent = len(question.words.encode("utf-8", "surrogatepass")) + FRAME_TOKENS
        worst = self._cost(sent, question.asked["maxAnswerTokens"])
        if self.spent + worst > self.allowed:
            raise TerminalFailure(
                "JudgeTooDear",
                f"{self.spent:.4g} were spent, and the next question may cost {worst:.4g}: more "
                f"than maxCost ({self.allowed:g}); raise it, or score fewer texts. Answers so far "
                "are kept",
            )

    def add(self, answer: Answer) -> None:
        """Take note of what an answer cost, as the endpoint counted its tokens."""
        self.spent += self._cost(answer.input_tokens, answer.output_tokens)

    def _cost(self, sent: int, answered: int) -> float:
        if self.price is None:
            return 0.0
        return (sent * self.price["input"] + answered * self.price["output"]) / _MILLION


@dataclass
class _Asking:
    """One job: what is known already, and the endpoint for the rest, asked at its pace."""

    way: Way
    endpoint: Endpoint
    kept: KeptAnswers
    known: dict[str, Answer]
    spending: Spending
    started_at: float = -math.inf

    def answer(self, question: Question, waiting: partial[None]) -> Answer:
        """Return the answer to a question, asking where nobody did."""
        if (known := self.known.get(question.digest)) is not None:
            return known
        self.spending.check(question)
        clock = self.endpoint.clock
        self.endpoint.rest(
            self.started_at + 60 / self.way["requestsPerMinute"] - clock.now(), waiting
        )
        self.started_at = clock.now()
        reply = self.endpoint.ask(question.body(), waiting)
        answer = Answer(
            question=question.digest,
            text_sha256=question.text_sha256,
            order=question.order,
            answer=reply.text,
            said=said(reply.text, question.order),
            served=reply.served,
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
        )
        self.known[answer.question] = answer
        self.spending.add(answer)
        self.kept.add([answer])
        return answer


def judge(
    texts: Sequence[ScoredText],
    payload: ScoresPayload,
    context: StageContext,
    clock: Clock | None = None,
) -> Measured:
    """Return the share of *yes* of each text over both orders of the answers.

    What was asked before, for whatever, is not asked again, and where nothing is left to be asked
    no endpoint need be allowed. Raises what ``scores`` raises of a judge.
    """
    questions = questions_of([text.text for text in texts], payload["asked"])
    way = cast(Way, payload["beside"])
    kept = KeptAnswers(default_cache(), cast(AskedOfJudge, payload["asked"])["model"])
    known = {**kept.read(), **_sealed(questions, context)}
    _check_number(sum(question.digest not in known for question in questions), way)
    endpoint = Endpoint(way["endpoint"], way.get("apiKeyVariable"), clock or Clock())
    if any(question.digest not in known for question in questions):
        endpoint.check_allowed()
    spending = Spending(way.get("price"), way.get("maxCost"))
    asking = _Asking(way, endpoint, kept, known, spending)
    answers: list[Answer] = []
    for number, part in enumerate(_parts(questions)):
        answers += _part(number, part, asking, context, len(answers), len(questions))
    by_text: dict[str, list[Answer]] = {}
    for question, answer in zip(questions, answers, strict=True):
        by_text.setdefault(question.text, []).append(answer)
    found = [_share(by_text.get(text.text, [])) for text in texts]
    record = _record(cast(AskedOfJudge, payload["asked"]), by_text)
    return Measured({"judge": found}, record["model"], answers, record)


def _check_number(unasked: int, way: Way) -> None:
    if unasked > way["maxRequests"]:
        raise TerminalFailure(
            "JudgeTooDear",
            f"{unasked:,} questions would be asked, two for each different text, and maxRequests "
            f"is {way['maxRequests']:,}; raise it, or steer fewer arms, strengths or samples",
        )


def _parts(questions: Sequence[Question]) -> list[Sequence[Question]]:
    size = QUESTIONS_PER_SHARD
    return [questions[start : start + size] for start in range(0, len(questions), size)]


def _name(number: int) -> str:
    return f"answers-{number:05}.json"


def _sealed(questions: Sequence[Question], context: StageContext) -> dict[str, Answer]:
    """Return the answers that earlier tries of this job sealed."""
    found: dict[str, Answer] = {}
    for number, _ in enumerate(_parts(questions)):
        if (path := context.shards.sealed(_name(number))) is not None:
            found |= {one.question: one for one in _read(path)}
    return found


def _part(
    number: int,
    questions: Sequence[Question],
    asking: _Asking,
    context: StageContext,
    done: int,
    total: int,
) -> list[Answer]:
    """Return the answers of one shard, asking for what is missing."""
    path = context.shards.sealed(_name(number))
    if path is None:
        answers: list[Answer] = []
        for question in questions:
            waiting = partial(
                context.progress, "AskingJudge", done + len(answers), total, "questions"
            )
            waiting()
            answers.append(asking.answer(question, waiting))
        text = json.dumps([asdict(one) for one in answers])
        path = context.shards.seal(_name(number), lambda part: _write(part, text))
    return _read(path)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _read(path: Path) -> list[Answer]:
    return [Answer(**one) for one in json.loads(path.read_text(encoding="utf-8"))]


def _share(answers: Sequence[Answer]) -> float:
    """Return the share of *yes* among answers that could be read; NaN without any."""
    read = [one.said for one in answers if one.said]
    return sum(word == "yes" for word in read) / len(read) if read else float("nan")


def _record(asked: AskedOfJudge, by_text: Mapping[str, Sequence[Answer]]) -> JudgeRecord:
    """Return how readable the answers are, and how far they follow the order of the choices."""
    answers = [one for found in by_text.values() for one in found]
    both = [found for found in by_text.values() if all(one.said for one in found)]
    read = [one for found in both for one in found]
    return {
        "model": asked["model"],
        "served": sorted({one.served for one in answers if one.served}),
        "prompt": asked["prompt"],
        "question": asked["question"],
        "answers": len(answers),
        "unreadable": sum(not one.said for one in answers),
        "both_orders": sum(len(found) == len(ORDERS) for found in both),
        "orders_differ": sum(len({one.said for one in found}) > 1 for found in both),
        "first_said": sum(one.order.startswith(f"{one.said}-") for one in read),
        "input_tokens": sum(one.input_tokens for one in answers),
        "output_tokens": sum(one.output_tokens for one in answers),
    }
