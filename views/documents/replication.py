"""Replications as a document: what ``replicate -o json`` prints."""

from __future__ import annotations

from typing import TypedDict

from loopscope.numerics.replication.effect import Equivalence
from loopscope.views.replication.axes import Replicated, Tried
from loopscope.views.replication.pairs import Line, Pairs
from loopscope.views.replication.replication import Replication
from loopscope.views.replication.step import Step


class CauseDocument(TypedDict):
    """What parted two runs at a stage, and what shows it."""

    name: str
    evidence: str


class StepDocument(TypedDict):
    """A stage of both runs."""

    stage: str
    state: str
    words: str
    sameWork: bool
    causes: list[CauseDocument]


class EffectDocument(TypedDict):
    """The difference of a contrast in both runs; ``openings`` is 0 where they share none."""

    contrast: str
    word: str
    difference: float
    low: float
    high: float
    low90: float
    high90: float
    p: float
    openings: int


class TriedDocument(TypedDict):
    """A value of an axis; ``answer`` is null, with the ``problem``, while it is not finished."""

    axis: str
    value: str
    experiment: str
    distance: float | None
    answer: str | None
    problem: str
    partsAt: str | None
    steps: list[StepDocument]
    effects: list[EffectDocument]


class LineDocument(TypedDict):
    """How many of how many latents or edges of a pair of dictionaries something is true of."""

    pair: str
    what: str
    count: int
    of: int
    low: float | None
    high: float | None


class ReplicatedDocument(TypedDict):
    """An experiment, or a bundle, beside what was tried again, and pairs of dictionaries."""

    name: str
    minDifference: float | None
    tried: list[TriedDocument]
    sentences: list[str]
    batch: str
    pairs: list[LineDocument]


def replicated_document(found: Replicated, pairs: Pairs) -> ReplicatedDocument:
    """Return all replications as a document."""
    margins = [one.found.margin for one in found.tried if one.found is not None]
    return {
        "name": found.name,
        "minDifference": margins[0] if margins else None,
        "tried": [_tried(one) for one in found.tried],
        "sentences": [found.sentence(axis) for axis in found.axes],
        "batch": found.alone,
        "pairs": [_line(one) for one in pairs.lines],
    }


def _tried(one: Tried) -> TriedDocument:
    found: Replication | None = one.found
    parted = found.parted if found is not None else None
    return {
        "axis": one.axis,
        "value": one.value,
        "experiment": one.experiment,
        "distance": one.distance,
        "answer": found.answer if found is not None else None,
        "problem": one.problem,
        "partsAt": parted.stage if parted is not None else None,
        "steps": [_step(step) for step in found.steps] if found is not None else [],
        "effects": [_effect(effect) for effect in found.effects] if found is not None else [],
    }


def _line(one: Line) -> LineDocument:
    known = one.found.of > 0
    return {
        "pair": one.pair,
        "what": one.what,
        "count": one.found.count,
        "of": one.found.of,
        "low": one.found.low if known else None,
        "high": one.found.high if known else None,
    }


def _step(step: Step) -> StepDocument:
    return {
        "stage": step.stage,
        "state": step.state,
        "words": step.words,
        "sameWork": step.same_work,
        "causes": [{"name": one.name, "evidence": one.evidence} for one in step.causes],
    }


def _effect(found: Equivalence) -> EffectDocument:
    return {
        "contrast": found.contrast,
        "word": found.word,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "low90": found.low_90,
        "high90": found.high_90,
        "p": found.p,
        "openings": found.n,
    }
