"""Blinded arms: letters in place of names until as much was scored as was registered.

The order of the letters is drawn from the registration's digest, so habit does not tell it. Who has
the record can work it out: letters keep an honest reader from knowing, they lock nobody out.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable
from typing import TypedDict

from loopscope.specs.registration import EARLY_RULE, FIXED, RegisteredPlan

BLINDED = "blinded"
"""The key of a steering's summary under which its blinding stands."""


class Blinding(TypedDict):
    """Why a steering's arms are letters: openings and samples that it has, and ought to have.

    ``digest`` is that of its work, ``registration`` that of the record.
    """

    digest: str
    registration: str
    openings: int
    samples_per_opening: int
    registered_openings: int
    registered_samples_per_opening: int


def is_reached(
    plan: RegisteredPlan, *, openings: int, declared: int, samples: int, every: int | None
) -> bool:
    """Return whether as much was scored as was registered, or stopped by the registered rule.

    ``openings`` were scored with ``samples`` each, ``declared`` is how many there could have been,
    ``every`` how many lay between two looks; None without looks.
    """
    rule = FIXED if every is None else EARLY_RULE.format(every=every)
    may_stop = every is not None and plan["stopping"].startswith(rule)
    scored = declared if may_stop else openings
    return scored >= plan["openings"] and samples >= plan["samples_per_opening"]


def letters_of(registration: str, arms: Iterable[str]) -> dict[str, str]:
    """Return the letter of each arm, in an order that is drawn from a registration's digest."""
    drawn = sorted(
        set(arms), key=lambda arm: hashlib.sha256(f"{registration} {arm}".encode()).hexdigest()
    )
    return {arm: _letter(place) for place, arm in enumerate(drawn)}


def arms_by_letter(registration: str, arms: Iterable[str]) -> dict[str, str]:
    """Return the arm of each letter."""
    return {letter: arm for arm, letter in letters_of(registration, arms).items()}


def _letter(place: int) -> str:
    """Return A to Z, then AA, AB and so on."""
    rest, last = divmod(place, 26)
    return (_letter(rest - 1) if rest else "") + string.ascii_uppercase[last]


def blinding_words(found: Blinding) -> str:
    """Return how far a steering is from what was registered, and what follows from that."""
    return (
        f"its arms are letters: {found['openings']} of {found['registered_openings']} registered "
        f"openings were scored, each with {found['samples_per_opening']} of "
        f"{found['registered_samples_per_opening']} samples; run what was registered, or open it "
        "early, for everybody to see, with `loopscope register NAME --open --note WHY`"
    )
