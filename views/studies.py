"""A study as a table of its concepts, and its one answer: multi minus the better single.

Everything is a pure function of the statuses of the study's experiments. Two contrasts are pooled
over the concepts that could be tested, multi minus coarse and multi minus fine; the answer is about
the smaller mean, as a verdict is. A concept that could not be tested is counted and never pooled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, cast

from loopscope.numerics.verdict.pooling import Interval, Spread, spread
from loopscope.numerics.verdict.several import METHOD, Cell, Pooled, corrected, pooled
from loopscope.numerics.verdict.words import SINGLES, WordP
from loopscope.specs.keys import Key
from loopscope.specs.spec_json import SteeringRulesJson
from loopscope.specs.study import concept_experiments, study_of
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.records import ObjectRecord
from loopscope.views.numbers import (
    MINUS,
    MISSING,
    counted,
    decimal,
    percent,
    signed,
    signed_interval,
)
from loopscope.views.present import present
from loopscope.views.several import Row, answer_of, row_of

COLUMNS = (
    *("concept", "family", "state", "gate", "verdict", f"after {METHOD}"),
    *("contrast", "estimate", "interval", "drawn to the mean"),
)
NOT_TESTABLE = "NotTestable"
NO_ANSWER = ""
PENDING = "pending"


@dataclass(frozen=True)
class ConceptRow:
    """A concept: how far it is, its own answer, and its difference drawn towards the mean.

    ``state`` is ``Ready``, else the reason why not, and ``message`` explains it; ``reason`` is that
    of its verdict. ``shown`` is the
    contrast that the study's answer is about, with its own interval, and ``drawn`` the same in the
    light of all concepts; None where the concept was not tested.
    """

    name: str
    family: str
    state: str
    message: str
    row: Row
    reason: str
    shown: Interval | None
    drawn: Interval | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The concept as texts, one for each of ``COLUMNS``."""
        _, gate, word, after, _, contrast, estimate, interval = self.row.cells
        own = (contrast, estimate, interval) if self.shown is not None else (MISSING,) * 3
        return (self.name, self.family, self.state, gate, word, after, *own, _drawn(self.drawn))


@dataclass(frozen=True)
class Answer:
    """The one answer of a study.

    ``word`` is Supported, Refuted, NoPracticalDifference or Inconclusive; empty while concepts are
    missing, with ``so_far`` what they say until now. ``contrast`` is the one of the smaller pooled
    mean; ``spread`` says how concepts differ in it.
    """

    word: str
    so_far: str
    reason: str
    contrast: str
    pooled: Pooled | None
    spread: Spread | None

    @property
    def mean(self) -> Interval | None:
        """The pooled mean of the contrast that the answer is about."""
        return self.pooled.primary[self.contrast] if self.pooled is not None else None

    @property
    def difference(self) -> str:
        """The pooled mean with its interval, as text."""
        mean = self.mean
        if mean is None:
            return MISSING
        return f"{signed(mean.estimate)} {signed_interval(mean.low, mean.high)}"


@dataclass(frozen=True)
class Study:
    """A study with all its concepts, those that have no answer yet among them."""

    name: str
    concepts: tuple[ConceptRow, ...]
    min_testable: int
    min_difference: float
    answer: Answer

    def counted(self, *words: str) -> int:
        """Return how many concepts have one of these verdicts."""
        return sum(one.row.word in words for one in self.concepts)

    @property
    def answered(self) -> int:
        """How many concepts have a verdict, NotTestable among them."""
        return sum(one.row.word != NO_ANSWER for one in self.concepts)

    @property
    def testable(self) -> int:
        """How many concepts were tested."""
        return self.answered - self.counted(NOT_TESTABLE)

    @property
    def open_gates(self) -> int:
        """In how many concepts the gate said GO."""
        return sum(one.row.gate == "GO" for one in self.concepts)

    @property
    def untested(self) -> list[ConceptRow]:
        """The concepts that could not be tested, with the reasons."""
        return [one for one in self.concepts if one.row.word == NOT_TESTABLE]

    @property
    def sentences(self) -> list[str]:
        """The answer in words, with everything that qualifies it."""
        return list(_sentences(self))


class ConceptDocument(TypedDict):
    """A concept of a study, and what came out."""

    name: str
    family: str
    state: str
    gate: str | None
    verdict: str | None
    corrected: str | None
    estimate: float | None
    low: float | None
    high: float | None
    drawn: float | None
    drawn_low: float | None
    drawn_high: float | None


class StudyDocument(TypedDict):
    """A study: its concepts, and its answer in sentences."""

    name: str
    word: str | None
    contrast: str | None
    concepts: list[ConceptDocument]
    sentences: list[str]


def load_study(connection: Connection, key: Key) -> Study:
    """Read a study. Raises KeyError if there is none of this name."""
    stored = objects.get(connection, key)
    if stored is None:
        raise KeyError(str(key))
    record, *owned = present(connection, [stored, *objects.owned_by(connection, stored.uid)])
    return study_of_records(record, owned)


def study_of_records(record: ObjectRecord, owned: Sequence[ObjectRecord]) -> Study:
    """Return a study from its record and the experiments that it owns."""
    spec = study_of(record.spec)
    known = {one.key.name: one for one in owned}
    named = [
        (one.name, one.family, known.get(f"{record.key.name}-{one.name}"))
        for one in concept_experiments(record.spec)
    ]
    steering = cast(SteeringRulesJson, spec["experiment"]["steering"])
    margin = float(steering["minDifference"])
    cells = [_cell(name, one) for name, _, one in named]
    answer = _answer(cells, spec["minTestable"], margin)
    drawn = iter(answer.spread.cells if answer.spread is not None else ())
    words = corrected(cells)
    rows = []
    for (name, family, one), cell, (word, p) in zip(named, cells, words, strict=True):
        tested = len(cell.primary) == SINGLES
        rows.append(
            ConceptRow(
                name,
                family,
                *_state(one),
                _row(name, one, word, p),
                str(answer_of(one).get("reason") or "") if one is not None else "",
                cell.primary[answer.contrast] if tested and answer.contrast else None,
                next(drawn, None) if tested else None,
            )
        )
    return Study(record.key.name, tuple(rows), spec["minTestable"], margin, answer)


def study_lines(study: Study) -> Iterator[tuple[str, ...]]:
    """Yield the table's head and rows as texts."""
    yield COLUMNS
    for one in study.concepts:
        yield one.cells


def study_document(study: Study) -> StudyDocument:
    """Return a study as a document; what is not known is null."""
    return {
        "name": study.name,
        "word": study.answer.word or None,
        "contrast": study.answer.contrast or None,
        "concepts": [
            {
                "name": one.name,
                "family": one.family,
                "state": one.state,
                "gate": one.row.gate or None,
                "verdict": one.row.word or None,
                "corrected": one.row.corrected or None,
                "estimate": one.shown.estimate if one.shown else None,
                "low": one.shown.low if one.shown else None,
                "high": one.shown.high if one.shown else None,
                "drawn": one.drawn.estimate if one.drawn else None,
                "drawn_low": one.drawn.low if one.drawn else None,
                "drawn_high": one.drawn.high if one.drawn else None,
            }
            for one in study.concepts
        ],
        "sentences": study.sentences,
    }


def _answer(cells: Sequence[Cell], min_testable: int, margin: float) -> Answer:
    row = pooled(cells, margin)
    tested = [cell for cell in cells if len(cell.primary) == SINGLES]
    unfinished = sum(cell.word == NO_ANSWER for cell in cells)
    if row is None:
        contrast, word = "", "Inconclusive"
    else:
        contrast = min(row.primary, key=lambda name: row.primary[name].estimate)
        word = row.word
    reason = ""
    if len(tested) < min_testable:
        word = "Inconclusive"
        reason = f"{counted(len(tested), 'concept')} could be tested, {min_testable} are needed"
    if unfinished:
        missing = f"{counted(unfinished, 'concept')} of {len(cells)} without an answer yet"
        reason = f"{missing}; {reason}" if reason else missing
    seen = [cell.primary[contrast] for cell in tested] if contrast else []
    return Answer("" if unfinished else word, word, reason, contrast, row, spread(seen))


def _cell(name: str, record: ObjectRecord | None) -> Cell:
    """Return a concept's verdict; what was not testable keeps no numbers.

    Each concept draws with a seed of its own, so that its errors are its own.
    """
    summary = answer_of(record) if record is not None and record.ready else {}
    word = str(summary.get("verdict", NO_ANSWER))
    if word in (NO_ANSWER, NOT_TESTABLE):
        return Cell(word)
    p = summary.get("p")
    return Cell(word, WordP(**p) if p else None, _primary(summary), name)


def _primary(summary: Mapping[str, Any]) -> dict[str, Interval]:
    """Return the contrasts, none with a smaller error than one opening that differs by 1 has.

    Where no opening differs the interval has no width, and the concept would outweigh all others.
    """
    found: dict[str, Interval] = {}
    for name, ends in (summary.get("primary") or {}).items():
        if None in (ends["estimate"], ends["low"], ends["high"]):
            continue
        own = Interval(ends["estimate"], ends["low"], ends["high"])
        least = 1 / int(summary["n"])
        found[name] = own if own.error >= least else Interval.around(own.estimate, least)
    return found


def _row(name: str, record: ObjectRecord | None, word: str | None, p: float | None) -> Row:
    if record is None:
        return Row(name, "", "", "", None, "", None, None, None)
    return row_of(record, word, p)


def _state(record: ObjectRecord | None) -> tuple[str, str]:
    if record is None:
        return PENDING, "the controller has not made it"
    ready = record.status.condition("Ready")
    if ready is None or record.status.observed_generation != record.generation:
        return PENDING, "the controller has not looked at this spec yet"
    return ("Ready" if record.ready else ready.reason), ready.message


def _drawn(found: Interval | None) -> str:
    if found is None:
        return MISSING
    return f"{signed(found.estimate)} {signed_interval(found.low, found.high)}"


def _sentences(study: Study) -> Iterator[str]:
    answer, total = study.answer, len(study.concepts)
    head = answer.word or f"No answer yet (so far {answer.so_far})"
    yield f"{head}{f': {answer.reason}' if answer.reason else ''}."
    if answer.pooled is not None:
        means = ", ".join(
            f"{name.replace('-', f' {MINUS} ')} {signed(mean.estimate)} "
            f"{signed_interval(mean.low, mean.high)}"
            for name, mean in sorted(answer.pooled.primary.items())
        )
        yield f"Mean over {counted(answer.pooled.cells, 'tested concept')}: {means}."
    if answer.spread is not None:
        yield _of_spread(answer.contrast, answer.spread)
    yield (
        f"Of {counted(total, 'concept')} {study.testable} could be tested and "
        f"{study.counted(NOT_TESTABLE)} could not ({_share(study.counted(NOT_TESTABLE), study)}); "
        f"the gate opened in {study.open_gates} ({_share(study.open_gates, study)})."
    )
    said = [one for one in study.concepts if one.row.p is not None]
    kept = sum(one.row.word == one.row.corrected for one in said)
    words = f"{kept} of {len(said)} stay said" if said else "none has more than Inconclusive"
    yield (
        f"Words of single concepts are corrected over all {total} by {METHOD}: {words}. "
        "The study's own answer is one test and needs no correction."
    )


def _of_spread(contrast: str, found: Spread) -> str:
    tau, new = found.tau, found.new
    return (
        f"Concepts differ: of {contrast.replace('-', f' {MINUS} ')} the standard deviation between "
        f"them is {decimal(tau.estimate)} [{decimal(tau.low)}, {decimal(tau.high)}], "
        f"I² {percent(found.i_square, 0)}. A new concept like these would show "
        f"{signed(new.estimate)} {signed_interval(new.low, new.high)}, "
        f"with probability {decimal(found.above)} more than 0."
    )


def _share(number: int, study: Study) -> str:
    return percent(number / study.answered, 0) if study.answered else MISSING
