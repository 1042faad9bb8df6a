"""Which texts choose and which confirm: a split by a keyed hash of the text itself."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from loopscope.specs.canonical import canonical_json
from loopscope.specs.fields import Spec, Unit, Weight, normalised

PromptSplit = Literal["discover", "test"]
OpeningSplit = Literal["calibrate", "test"]

TEST_PROMPTS_MIN = 5
"""Fewest prompts of a condition on either side: five against five can reach a one-sided p of
1/252, four against four only 1/70, which no correction over several candidates survives."""


class Splits(Spec):
    """Which prompts choose latents, which openings choose strengths, and which only test.

    Weights, not shares of one whole: prompts go to *discover* or *test* as discover : test,
    openings to *calibrate* or *test* as calibrate : test, in each condition apart.
    """

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Key of the hash that divides the texts."""
    discover: Annotated[float, Field(gt=0.0, le=1.0), Unit("weight")] = 1.0
    """Weight of the prompts that choose latents and map them."""
    test: Weight = 0.0
    """Weight of the texts that are scored once; 0 means that nothing is confirmed."""
    calibrate: Weight = 0.0
    """Weight of the openings that may choose strengths and are never scored."""

    @model_validator(mode="after")
    def _something_is_scored(self) -> Splits:
        if self.calibrate > 0 and self.test == 0:
            raise ValueError("calibrate needs test > 0, or no opening would be scored")
        return self

    def of_prompts(self, texts: Sequence[str]) -> list[PromptSplit]:
        """Return each prompt's split; ``texts`` are those of one condition."""
        share = self.test / (self.discover + self.test)
        return ["test" if held else "discover" for held in divided(texts, self.seed, share)]

    def of_openings(self, texts: Sequence[str]) -> list[OpeningSplit]:
        """Return each opening's split; without ``calibrate`` all are scored."""
        share = self.calibrate / (self.calibrate + self.test) if self.calibrate else 0.0
        return ["calibrate" if held else "test" for held in divided(texts, self.seed, share)]

    def check_prompts(self, sets: dict[str, Sequence[str]]) -> None:
        """Raise ValueError where a condition is too small to be divided as declared."""
        for name, texts in sets.items():
            sides = self.of_prompts(texts)
            for side in ("discover", "test") if self.test > 0 else ():
                found = sides.count(side)
                if found < TEST_PROMPTS_MIN:
                    raise ValueError(
                        f"the split leaves {found} of {len(texts)} {name} prompts to {side}, "
                        f"expected at least {TEST_PROMPTS_MIN}; add prompts, or change "
                        "splits.discover and splits.test"
                    )

    def check_openings(self, texts: Sequence[str]) -> None:
        """Raise ValueError where openings cannot be divided as declared."""
        if self.calibrate > 0 and len(texts) < 2:
            raise ValueError(
                f"splits.calibrate needs at least 2 openings, found {len(texts)}; add openings "
                "or set calibrate to 0"
            )


def divided(texts: Sequence[str], seed: int, share: float) -> list[bool]:
    """Return which texts fall into the part that is ``share`` of them.

    The count is exact (rounded, and with a share above 0 neither part of two or more texts is
    empty); who falls into it depends on the seed and the texts alone, not on their order.
    """
    count = math.floor(len(texts) * share + 0.5)
    if share > 0 and len(texts) > 1:
        count = min(max(count, 1), len(texts) - 1)
    if count == 0:
        return [False] * len(texts)
    order = sorted(range(len(texts)), key=lambda index: _rank(seed, texts[index]))
    held = set(order[:count])
    return [index in held for index in range(len(texts))]


def _rank(seed: int, text: str) -> str:
    key = canonical_json(["split", seed, normalised(text)])
    return hashlib.sha256(key.encode()).hexdigest()


CONDITIONS = {"target": "target", "neutral": "neutral", "hard-negative": "hardNegatives"}
"""The conditions in the order of the tables, with the field that holds their prompts."""


@dataclass(frozen=True)
class Prompt:
    """A prompt of a stored spec: ``id`` as in the tables, text and condition."""

    id: str
    text: str
    condition: str


def prompts_of(spec: Mapping[str, Any]) -> list[Prompt]:
    """Return the prompts of a stored Capture in the order of the tables."""
    return [
        Prompt(f"{condition}-{number:04d}", text, condition)
        for condition, field in CONDITIONS.items()
        for number, text in enumerate(spec["prompts"].get(field, {}).get("texts", ()))
    ]


def prompt_splits(spec: Mapping[str, Any]) -> list[PromptSplit]:
    """Return the split of each prompt of a stored Capture, in the order of the tables."""
    splits = Splits.model_validate(spec.get("splits", {}))
    prompts = prompts_of(spec)
    found: list[PromptSplit] = []
    for condition in CONDITIONS:
        found += splits.of_prompts([one.text for one in prompts if one.condition == condition])
    return found
