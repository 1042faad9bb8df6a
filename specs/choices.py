"""Questions with one right answer among a few, made from short lists.

Capitals, sums in words, and the agreement of a verb with its subject past another noun. The same
lists give the same items everywhere; those with a word of the lexicon are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from loopscope.specs.lexicon import folded, lexicon_pattern

Family = Literal["capitals", "arithmetic", "agreement"]
FAMILIES: tuple[Family, ...] = ("capitals", "arithmetic", "agreement")
OPTIONS = 4
_CAPITALS = (
    ("Norway", "Oslo"), ("Japan", "Tokyo"), ("Egypt", "Cairo"), ("Kenya", "Nairobi"),
    ("Peru", "Lima"), ("Canada", "Ottawa"), ("Spain", "Madrid"), ("Italy", "Rome"),
    ("Germany", "Berlin"), ("Poland", "Warsaw"), ("Greece", "Athens"), ("Cuba", "Havana"),
    ("Sweden", "Stockholm"), ("Austria", "Vienna"), ("Hungary", "Budapest"), ("Russia", "Moscow"),
    ("China", "Beijing"), ("Ireland", "Dublin"), ("Portugal", "Lisbon"), ("Thailand", "Bangkok"),
    ("France", "Paris"), ("Finland", "Helsinki"), ("Chile", "Santiago"), ("Denmark", "Copenhagen"),
)  # fmt: skip
_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty",
)  # fmt: skip
_SUMS = tuple((a, b) for a in (2, 3, 5, 6, 8, 9) for b in (1, 4, 7, 10))
_SUBJECTS = (
    ("key", "keys"), ("picture", "pictures"), ("letter", "letters"), ("road", "roads"),
    ("song", "songs"), ("window", "windows"),
)  # fmt: skip
_OTHERS = (
    ("beside the cabinet", "beside the cabinets"), ("near the table", "near the tables"),
)  # fmt: skip


class Choice(TypedDict):
    """A beginning with ways to go on, of which the one at ``right`` is right."""

    family: Family
    prompt: str
    options: list[str]
    right: int


def choices(lexicon: Sequence[str]) -> list[Choice]:
    """Return the items, 24 a family, less those that hold a word of the lexicon."""
    pattern = lexicon_pattern(lexicon)
    items = [*_capitals(), *_sums(), *_agreements()]
    return [
        item
        for item in items
        if not pattern.search(folded(" ".join([item["prompt"], *item["options"]])))
    ]


def _capitals() -> list[Choice]:
    names = [capital for _, capital in _CAPITALS]
    return [
        _item("capitals", f"The capital of {country} is", number, names)
        for number, (country, _) in enumerate(_CAPITALS)
    ]


def _sums() -> list[Choice]:
    return [
        _item(
            "arithmetic", f"{_NUMBERS[a].capitalize()} plus {_NUMBERS[b]} equals", a + b, _NUMBERS
        )
        for a, b in _SUMS
    ]


def _item(family: Family, prompt: str, answer: int, names: Sequence[str]) -> Choice:
    """Return the item: the right name among the three behind it, its place by turns."""
    count = len(names)
    others = [f" {names[(answer + step) % count]}" for step in range(1, OPTIONS)]
    right = answer % OPTIONS
    options = [*others[:right], f" {names[answer]}", *others[right:]]
    return {"family": family, "prompt": prompt, "options": options, "right": right}


def _agreements() -> list[Choice]:
    return [
        {
            "family": "agreement",
            "prompt": f"The {subject[number]} {other[1 - number]}",
            "options": [" is", " are"],
            "right": number,
        }
        for subject in _SUBJECTS
        for other in _OTHERS
        for number in (0, 1)
    ]
