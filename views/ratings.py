"""Ratings of generated texts by people: how far each agrees with the lexicon, and with others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from loopscope.numerics.statistics.agreement import Agreement, cohen_kappa
from loopscope.specs.artifacts.steering import SCORES
from loopscope.specs.ratings import Rated, RatingSet
from loopscope.views.experiment import StageView
from loopscope.views.numbers import percent, signed, signed_interval

HEAD = ("rater", "with", "texts", "openings", "agree", "kappa", "95 % interval")
LEXICON = "the lexicon"


@dataclass(frozen=True)
class Compared:
    """A rater beside another one or the lexicon, over the texts that both judged."""

    rater: str
    other: str
    agreement: Agreement


@dataclass(frozen=True)
class Ratings:
    """What people said of a steering's texts, and how far that agrees.

    ``shares`` is the share of texts of each arm that the raters called about the concept, pooled
    over raters and strengths, with the number of ratings.
    """

    compared: Sequence[Compared] = ()
    shares: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    def rows(self) -> Iterator[list[str]]:
        """Yield the cells under ``HEAD``."""
        for one in self.compared:
            found = one.agreement
            yield [
                one.rater,
                one.other,
                str(found.n),
                str(found.units),
                percent(found.observed, 0),
                signed(found.kappa),
                signed_interval(found.low, found.high),
            ]


def ratings_of(sets: Sequence[RatingSet], steering: StageView) -> Ratings:
    """Return the agreement of all sets of ratings of a steering; empty without any.

    Of a text that somebody rated twice the later rating counts. Raises LookupError and Corrupt as
    the table of scores does.
    """
    if not sets:
        return Ratings()
    by_rater = _by_rater(sets)
    lexicon = _lexicon(steering)
    pairs = [(rater, LEXICON, said, lexicon) for rater, said in by_rater.items()]
    pairs += [(a, b, by_rater[a], by_rater[b]) for a, b in combinations(by_rater, 2)]
    compared = [
        Compared(rater, other, agreement)
        for rater, other, first, second in pairs
        if (agreement := _agreement(first, second)) is not None
    ]
    return Ratings(compared, _shares(by_rater))


def unknown_text(ratings: RatingSet, steering: StageView) -> Rated | None:
    """Return a text that was rated and that the steering does not have; None if it has all."""
    known = _lexicon(steering)
    return next((text for text in ratings.ratings if text not in known), None)


def _by_rater(sets: Sequence[RatingSet]) -> dict[str, dict[Rated, int]]:
    found: dict[str, dict[Rated, int]] = {}
    for one in sorted(sets, key=lambda one: one.date):
        found.setdefault(one.rater, {}).update(one.ratings)
    return dict(sorted(found.items()))


def _lexicon(steering: StageView) -> dict[Rated, int]:
    """Return what the lexicon says of every text."""
    scores = steering.table(SCORES)
    names = SCORES.named("prompt_id", "arm", "strength", "sample", "concept")
    columns = (scores[name].tolist() for name in names)
    return {
        Rated(str(prompt), str(arm), float(strength), int(sample)): int(concept > 0)
        for prompt, arm, strength, sample, concept in zip(*columns, strict=True)
    }


def _agreement(first: Mapping[Rated, int], second: Mapping[Rated, int]) -> Agreement | None:
    both = [text for text in first if text in second]
    if not both:
        return None
    return cohen_kappa(
        [first[text] for text in both],
        [second[text] for text in both],
        [text.prompt_id for text in both],
    )


def _shares(by_rater: Mapping[str, Mapping[Rated, int]]) -> dict[str, tuple[float, int]]:
    of_arm: dict[str, list[int]] = {}
    for said in by_rater.values():
        for text, rating in said.items():
            of_arm.setdefault(text.arm, []).append(rating)
    return {arm: (sum(given) / len(given), len(given)) for arm, given in sorted(of_arm.items())}
