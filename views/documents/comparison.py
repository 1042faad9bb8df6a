"""A comparison as a document: what ``compare -o json`` prints."""

from __future__ import annotations

from typing import Any, TypedDict

from loopscope.views.comparison import ComparisonView, How, Latents, Number, Side


class ChangeDocument(TypedDict):
    """A field of the spec in both experiments; null stands for *not there*."""

    field: str
    first: Any
    second: Any


class MatchDocument(TypedDict):
    """A latent of the first experiment, and its match in the second."""

    first: int
    second: int | None
    cosine: float | None


class LatentsDocument(TypedDict):
    """The latents of one side, and how they were matched."""

    side: Side
    matchedBy: How
    matches: list[MatchDocument]
    onlySecond: list[int]
    note: str
    directionCosine: float | None


class ComparisonDocument(TypedDict):
    """Two experiments side by side; of ``spec`` only what differs."""

    first: str
    second: str
    spec: list[ChangeDocument]
    latents: list[LatentsDocument]
    mapping: list[ChangeDocument]
    verdict: list[ChangeDocument]
    arms: list[ChangeDocument]
    problems: list[dict[str, str]]


def comparison_document(view: ComparisonView) -> ComparisonDocument:
    """Return a comparison as a document."""
    return {
        "first": view.first,
        "second": view.second,
        "spec": [{"field": c.field, "first": c.before, "second": c.after} for c in view.spec],
        "latents": [_latents(one) for one in view.latents],
        "mapping": [_number(one) for one in view.mapping],
        "verdict": [_number(one) for one in view.verdict],
        "arms": [_number(one) for one in view.arms],
        "problems": [{"experiment": name, "problem": text} for name, text in view.problems],
    }


def _latents(one: Latents) -> LatentsDocument:
    return {
        "side": one.side,
        "matchedBy": one.how,
        "matches": [
            {"first": match.first, "second": match.second, "cosine": match.cosine}
            for match in one.matches
        ],
        "onlySecond": list(one.only_second),
        "note": one.note,
        "directionCosine": one.direction_cosine,
    }


def _number(one: Number) -> ChangeDocument:
    return {"field": one.name, "first": one.first, "second": one.second}
