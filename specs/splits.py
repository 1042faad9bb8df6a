"""Splits: which texts choose and which confirm, by a keyed hash of the text itself."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from loopscope.specs.canonical import canonical_json
from loopscope.specs.fields import Groups, Spec, Unit, Weight
from loopscope.specs.spec_json import PromptSetsJson
from loopscope.specs.texts.same import normalised
from loopscope.specs.texts_json import GroupedTextsJson

PromptSplit = Literal["discover", "test"]
OpeningSplit = Literal["calibrate", "test"]
Labelled = tuple[str, str | None]
"""A text with the label of its group, None where it stands for itself."""

TEST_PROMPTS_MIN = 5
"""Fewest prompts of a condition on either side: five against five can reach a one-sided p of
1/252, four against four only 1/70, which no correction over several candidates survives."""
HALVES_FROM = 50
"""With this many target and this many neutral prompts half of them are held out by default."""
CONDITIONS: dict[str, Literal["target", "neutral", "hardNegatives"]] = {
    "target": "target",
    "neutral": "neutral",
    "hard-negative": "hardNegatives",
}
"""The conditions in the order of the tables, with the field that holds their prompts."""


class Splits(Spec):
    """Which prompts choose latents, which openings choose strengths, and which only test.

    Weights, not shares of one whole: prompts go to *discover* or *test* as discover : test,
    openings to *calibrate* or *test* as calibrate : test, in each condition apart.
    """

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Key of the hash that divides the texts."""
    discover: Annotated[float, Field(gt=0.0, le=1.0), Unit("weight")] = 1.0
    """Weight of the prompts that choose latents and map them."""
    test: Weight | None = None
    """Weight of the texts that are scored once; 0 means that nothing is confirmed. Default: that of
    ``discover`` from 50 target and 50 neutral prompts on, if groups and hard negatives leave five
    prompts of each condition on both sides; else 0."""
    calibrate: Weight = 0.0
    """Weight of the openings that may choose strengths and are never scored."""

    @model_validator(mode="after")
    def _something_is_scored(self) -> Splits:
        if self.calibrate > 0 and not self.test:
            raise ValueError("calibrate needs test > 0, or no opening would be scored")
        return self

    def of_prompts(self, prompts: Sequence[Prompt]) -> list[PromptSplit]:
        """Return the split of each prompt of an experiment, whole groups on one side."""
        count = Counter(prompt.condition for prompt in prompts)
        if self.test is not None:
            return self._of_prompts(prompts, self.test)
        if min(count["target"], count["neutral"]) >= HALVES_FROM:
            halves = self._of_prompts(prompts, self.discover)
            if not _too_few(prompts, halves):
                return halves
        return ["discover"] * len(prompts)

    def _of_prompts(self, prompts: Sequence[Prompt], test: float) -> list[PromptSplit]:
        held = divided(
            [prompt.text for prompt in prompts],
            self.seed,
            test / (self.discover + test),
            [prompt.condition for prompt in prompts],
            [prompt.group for prompt in prompts],
        )
        return ["test" if one else "discover" for one in held]

    def of_openings(self, openings: Sequence[Labelled]) -> list[OpeningSplit]:
        """Return each opening's split; without ``calibrate`` all are scored."""
        share = self.calibrate / (self.calibrate + (self.test or 0)) if self.calibrate else 0.0
        texts, labels = [text for text, _ in openings], [label for _, label in openings]
        held = divided(texts, self.seed, share, groups=labels)
        return ["calibrate" if one else "test" for one in held]

    def check_openings(self, openings: Sequence[Labelled]) -> None:
        """Raise ValueError where openings cannot be divided as declared."""
        if self.calibrate > 0 and len(set(self.of_openings(openings))) < 2:
            raise ValueError(
                f"splits.calibrate needs at least 2 openings, or groups of them, found "
                f"{_units(openings)}; add openings or set calibrate to 0"
            )


@dataclass(frozen=True)
class Prompt:
    """A prompt of a stored spec: ``id`` as in the tables; ``group`` is the label of its group."""

    id: str
    text: str
    condition: str
    group: str | None


def prompts_of(sets: PromptSetsJson) -> list[Prompt]:
    """Return the prompts of a stored spec's ``prompts``, in the order of the tables."""
    return [
        Prompt(f"{condition}-{number:04d}", text, condition, label)
        for condition, field in CONDITIONS.items()
        if field in sets
        for number, (text, label) in enumerate(labelled(sets[field]))
    ]


def labelled(texts: GroupedTextsJson) -> list[Labelled]:
    """Return each text of a stored text set with the label of its group."""
    found, groups = texts["texts"], texts.get("groups")
    none: tuple[None, ...] = (None,) * len(found)
    labels = Groups.model_validate(groups).of(len(found)) if groups is not None else none
    return list(zip(found, labels, strict=True))


def check_prompts(splits: Splits, sets: PromptSetsJson) -> None:
    """Raise ValueError where a condition is too small to be divided as declared."""
    prompts = prompts_of(sets)
    for condition, side, found, of in _too_few(prompts, splits.of_prompts(prompts)):
        if splits.test:
            raise ValueError(
                f"the split leaves {found} of {of} {condition} prompts to {side}, expected at "
                f"least {TEST_PROMPTS_MIN}; add prompts, or change splits.discover and splits.test"
            )


def divided(
    texts: Sequence[str],
    seed: int,
    share: float,
    conditions: Sequence[str] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> list[bool]:
    """Return which texts fall into the part that is ``share`` of them.

    Who falls into it depends on the seed and the texts alone, not on their order. The count of
    each condition is exact (rounded, and with a share above 0 neither part of two or more texts is
    empty) unless ``groups`` hinder it: texts of one group (None: each for itself) stay together,
    and groups are taken as long as they bring the counts nearer to what they should be.
    """
    conditions = conditions or [""] * len(texts)
    wanted = {name: _count(n, share) for name, n in Counter(conditions).items()}
    ranks = [rank_of(seed, text) for text in texts] if any(wanted.values()) else [""] * len(texts)
    members: dict[Hashable, list[int]] = {}
    for place, label in enumerate(groups or [None] * len(texts)):
        members.setdefault(("alone", place) if label is None else label, []).append(place)
    held: set[int] = set()
    for group in sorted(members.values(), key=lambda places: min(ranks[i] for i in places)):
        found = Counter(conditions[place] for place in group)
        nearer = sum(abs(wanted[name]) - abs(wanted[name] - n) for name, n in found.items())
        if nearer > 0:
            held.update(group)
            wanted = {name: left - found[name] for name, left in wanted.items()}
    return [place in held for place in range(len(texts))]


def numbered(labels: Sequence[str | None]) -> list[int] | None:
    """Return a number for each text, equal for those of one label; None where all stand alone."""
    first: dict[str, int] = {}
    numbers = [
        place if label is None else first.setdefault(label, place)
        for place, label in enumerate(labels)
    ]
    return numbers if len(set(numbers)) < len(numbers) else None


def _count(texts: int, share: float) -> int:
    count = math.floor(texts * share + 0.5)
    return min(max(count, 1), texts - 1) if share > 0 and texts > 1 else count


def _too_few(
    prompts: Sequence[Prompt], splits: Sequence[PromptSplit]
) -> list[tuple[str, str, int, int]]:
    """Return each condition and side with too few prompts: how many, and of how many."""
    of = Counter(prompt.condition for prompt in prompts)
    found = Counter((one.condition, split) for one, split in zip(prompts, splits, strict=True))
    return [
        (condition, side, found[condition, side], of[condition])
        for condition in of
        for side in ("discover", "test")
        if found[condition, side] < TEST_PROMPTS_MIN
    ]


def _units(openings: Sequence[Labelled]) -> int:
    return len(set(numbered([label for _, label in openings]) or range(len(openings))))


def rank_of(seed: int, text: str) -> str:
    """Return by what a text is put in an order that depends on the seed and the text alone."""
    key = canonical_json(["split", seed, normalised(text)])
    return hashlib.sha256(key.encode()).hexdigest()
