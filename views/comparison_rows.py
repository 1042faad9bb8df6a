"""A comparison as rows of words: what the terminal and the page show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from loopscope.views.brief import in_brief
from loopscope.views.comparison import ComparisonView, Latents, Match, Number
from loopscope.views.numbers import decimal

_WORDS = {"coarse": "anchors", "fine": "children"}


@dataclass(frozen=True)
class Row:
    """What is compared, and its words in both experiments; ``differs`` whether they do."""

    what: str
    first: str
    second: str
    differs: bool


@dataclass(frozen=True)
class Part:
    """A part of a comparison with its rows; ``note`` says what they cannot."""

    title: str
    rows: tuple[Row, ...]
    note: str = ""


def comparison_parts(view: ComparisonView) -> tuple[Part, ...]:
    """Return spec, latents, gate and steering side by side; of the spec what differs alone."""
    spec = tuple(
        Row(f"spec.{one.field}", in_brief(one.before), in_brief(one.after), differs=True)
        for one in view.spec
    )
    notes = (f"{_WORDS[one.side]}: {one.note}" for one in view.latents if one.note)
    return (
        Part("Spec", spec or (Row("spec", "the same", "the same", differs=False),)),
        Part(
            "Latents",
            tuple(row for latents in view.latents for row in _latents(latents)),
            "; ".join(notes),
        ),
        Part("Gate", tuple(_numbers("gate", view.mapping))),
        Part(
            "Steering",
            (*_numbers("steering", view.verdict), *_numbers("concept_rate", view.arms)),
        ),
    )


def comparison_sentences(view: ComparisonView) -> tuple[str, ...]:
    """Return what came out of each of the two, and in how much they differ."""
    gate, verdict = ({one.name: one for one in n} for n in (view.mapping, view.verdict))
    told = []
    for name, side in ((view.first, "first"), (view.second, "second")):
        words = [
            f"{what} {value}"
            for what, found in (("gate", gate), ("verdict", verdict))
            if (value := getattr(found.get("verdict"), side, None)) is not None
        ]
        told.append(f"{name}: {', '.join(words) or 'no answer yet'}.")
    count = len(view.spec)
    told.append(f"Their specs differ in {count} field{'s' if count != 1 else ''}.")
    return tuple(told)


def _numbers(prefix: str, numbers: tuple[Number, ...]) -> Iterator[Row]:
    for one in numbers:
        if one.first is not None or one.second is not None:
            words = in_brief(one.first), in_brief(one.second)
            yield Row(f"{prefix}.{one.name}", *words, differs=one.differs)


def _latents(latents: Latents) -> Iterator[Row]:
    what = _WORDS[latents.side]
    if latents.direction_cosine is not None:
        cosine = f"cosine {decimal(latents.direction_cosine, 3)}"
        differs = latents.direction_cosine < 1 - 1e-6
        yield Row(f"{latents.side} direction", "", cosine, differs)
    alone = "not matched" if latents.how == "not matched" else "-"
    for match in latents.matches:
        differs = match.second != match.first or latents.how == "cosine"
        second = alone if match.second is None else _matched(match)
        yield Row(what, str(match.first), second, differs)
    for latent in latents.only_second:
        yield Row(what, alone, str(latent), differs=True)


def _matched(match: Match) -> str:
    near = match.cosine is not None and match.cosine < 1.0
    return f"{match.second} (cosine {decimal(match.cosine, 3)})" if near else str(match.second)
