"""A study tried again over an axis: its one answer at every value, and concept by concept.

A value of the axis is a cell of each concept's sweep. These cells stand in for the study's own
experiments, so every value gets the whole answer, pooled as the study's own is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from loopscope.numerics.replication.matching import Share
from loopscope.specs.keys import Key
from loopscope.specs.replication import sweep_name
from loopscope.specs.study import concept_experiments
from loopscope.specs.sweep import matrix_of
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.records import ObjectRecord
from loopscope.views.numbers import MINUS, MISSING, percent
from loopscope.views.present import present
from loopscope.views.studies import NO_ANSWER, NOT_TESTABLE, Study, load_study, study_of_records

OWN = "own"
COLUMNS = ("axis", "value", "answer", "testable", "contrast", "difference")
SHARE_COLUMNS = ("value", "what", "count", "of", "share", "95 %")
ALL = "all"


@dataclass(frozen=True)
class StudyAgain:
    """A study's answer at each value of an axis, its own first."""

    axis: str
    own: Study
    tried: Mapping[str, Study]

    @property
    def holds(self) -> bool:
        """Whether the study's own word is that of every value."""
        words = {one.answer.word for one in self.tried.values()}
        return bool(self.own.answer.word) and words <= {self.own.answer.word}

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the head and a row a value as texts."""
        yield COLUMNS
        for value, study in {OWN: self.own, **self.tried}.items():
            answer = study.answer
            yield (
                self.axis,
                value,
                answer.word or "not finished",
                f"{study.testable} of {len(study.concepts)}",
                answer.contrast.replace("-", f" {MINUS} ") or MISSING,
                answer.difference,
            )

    def shares(self) -> Iterator[tuple[str, str, Share]]:
        """Yield value, what is counted, and its share: concepts of each value, then values.

        Concepts are counted where both have an answer; values once there are two, all finished.
        """
        for value, study in self.tried.items():
            both = list(_both(self.own, study))
            yield value, "concepts with the same word", Share.over([a == b for a, b in both])
            tested = [b != NOT_TESTABLE for a, b in both if a != NOT_TESTABLE]
            yield value, "testable concepts that are testable again", Share.over(tested)
        words = [one.answer.word for one in self.tried.values()]
        if len(words) > 1 and all(words) and self.own.answer.word:
            same = Share.over([word == self.own.answer.word for word in words])
            yield ALL, "values with the study's word", same


def _both(own: Study, other: Study) -> Iterator[tuple[str, str]]:
    """Yield the two words of each concept that has an answer in both."""
    for one, again in zip(own.concepts, other.concepts, strict=True):
        if NO_ANSWER not in (one.row.word, again.row.word):
            yield one.row.word, again.row.word


def share_rows(shares: Sequence[tuple[str, str, Share]]) -> Iterator[tuple[str, ...]]:
    """Yield the head and the shares as texts."""
    yield SHARE_COLUMNS
    for value, what, one in shares:
        ends = f"{percent(one.low)} to {percent(one.high)}" if one.of else MISSING
        yield value, what, f"{one.count:,}", f"{one.of:,}", percent(one.share), ends


def load_study_again(connection: Connection, key: Key, axis: str) -> StudyAgain:
    """Read a study beside the sweeps of its concepts. Raises KeyError if there is no such study."""
    own = load_study(connection, key)
    record = objects.get(connection, key)
    assert record is not None, "it was loaded"
    names = [f"{key.name}-{one.name}" for one in concept_experiments(record.spec)]
    sweeps = {name: _sweep(connection, key, name, axis) for name in names}
    values = sorted(
        {value for one in sweeps.values() if one for value in matrix_of(one.spec)[axis]}
    )
    tried = {}
    for value in values:
        stands_in = []
        for name in names:
            cell = objects.get(connection, _cell(key, name, axis, value))
            if cell is not None:
                (shown,) = present(connection, [cell])
                stands_in.append(replace(shown, key=shown.key._replace(name=name)))
        tried[value] = study_of_records(record, stands_in)
    return StudyAgain(axis, own, tried)


def _sweep(connection: Connection, study: Key, name: str, axis: str) -> ObjectRecord | None:
    return objects.get(connection, Key("Experiment", study.namespace, sweep_name(name, axis)))


def _cell(study: Key, name: str, axis: str, value: str) -> Key:
    return Key("Experiment", study.namespace, f"{sweep_name(name, axis)}-{value}")


class ShareDocument(TypedDict):
    """How many of how many concepts or values something is true of."""

    value: str
    what: str
    count: int
    of: int
    low: float | None
    high: float | None


class StudyValueDocument(TypedDict):
    """A study's answer at one value of an axis."""

    value: str
    answer: str | None
    testable: int
    contrast: str | None
    estimate: float | None
    low: float | None
    high: float | None


class StudyAgainDocument(TypedDict):
    """A study tried again over an axis."""

    name: str
    axis: str
    values: list[StudyValueDocument]
    shares: list[ShareDocument]


def study_again_document(found: StudyAgain) -> StudyAgainDocument:
    """Return a study tried again as a document; what is not known is null."""
    return {
        "name": found.own.name,
        "axis": found.axis,
        "values": [_value(value, one) for value, one in {OWN: found.own, **found.tried}.items()],
        "shares": [
            {
                "value": value,
                "what": what,
                "count": one.count,
                "of": one.of,
                "low": one.low if one.of else None,
                "high": one.high if one.of else None,
            }
            for value, what, one in found.shares()
        ],
    }


def _value(value: str, study: Study) -> StudyValueDocument:
    mean = study.answer.mean
    return {
        "value": value,
        "answer": study.answer.word or None,
        "testable": study.testable,
        "contrast": study.answer.contrast or None,
        "estimate": mean.estimate if mean else None,
        "low": mean.low if mean else None,
        "high": mean.high if mean else None,
    }
