"""Registrations: what was meant to be found out, written down before anybody knew.

Each is sealed with a digest that covers the digest of the one before it, so none can be edited,
taken out or put in between without all that follow. Keys are written in snake_case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict, cast

from loopscope.specs.canonical import digest

LAYOUT = "loopscope registration 1"
FIXED = "fixed: all openings and samples of the spec, then one verdict"
EARLY_RULE = "early: a look after each {every} openings or a few more"
EARLY = EARLY_RULE + (
    ", and a word where the e-values say it "
    "(Supported {supported:g}, Refuted {refuted:g}, NoPracticalDifference {no_difference:g})"
)
NOTE_CHARACTERS_MAX = 4_000
_HYPOTHESIS = re.compile(r"\s*([A-Za-z]+-[A-Za-z]+)\s*([<>])\s*0\s*")


class Hypothesis(TypedDict):
    """The expected sign of a contrast between two arms in an outcome."""

    contrast: str
    sign: Literal["greater", "less"]
    outcome: str


class RegisteredPlan(TypedDict):
    """How much is to be generated and scored, and when it is enough."""

    openings: int
    samples_per_opening: int
    arms: list[str]
    strengths: list[float]
    strength_unit: str
    min_difference: float
    stopping: str


class RegisteredCode(TypedDict):
    """By what the numbers are to be made: version, revisions of the stages, and a source hash."""

    loopscope: str
    revisions: dict[str, int]
    sources: str


class Intention(TypedDict):
    """What is registered.

    ``spec`` has a digest of the spec of each stage, ``inputs`` the identity of the model and of
    both dictionaries, ``known`` the content digests of the stages that were done already: not
    those that hold an outcome.
    """

    experiment: str
    spec: dict[str, str]
    hypotheses: list[Hypothesis]
    plan: RegisteredPlan
    inputs: dict[str, str]
    code: RegisteredCode
    known: dict[str, str]
    note: str
    opened: NotRequired[str]
    """In place of an intention: the registration whose arms are named from here on, before as
    much was scored as it says."""


class Registration(Intention):
    """An intention in its place of the chain; ``digest`` covers everything else."""

    layout: str
    number: int
    previous: str | None
    registered_at: str
    digest: str


class OtherSteering(TypedDict):
    """A steering of the experiment that ended and is not the one of the bundle.

    ``digest`` names its work; somebody may have looked at what came of it.
    """

    digest: str
    openings: int
    samples_per_opening: int
    ended_at: str


class RegisterExtract(TypedDict):
    """What a bundle holds of a register: the digests of the whole chain, and its own records.

    ``steerings`` are the other ones that the state folder remembers, oldest first; older bundles
    do not say.
    """

    chain: list[str]
    records: list[Registration]
    steerings: NotRequired[list[OtherSteering]]
    letters: NotRequired[dict[str, str]]
    """Which arm each letter was, once the arms may be named."""


@dataclass(frozen=True)
class InForce:
    """The last intention of an experiment, and the record that opened it early, if one did."""

    intention: Registration
    opening: Registration | None


class BrokenChain(Exception):
    """A register was edited, or lacks a record."""


def hypothesis_of(word: str, arms: Sequence[str]) -> Hypothesis:
    """Read ``multi-fine>0``. Raises ValueError for a contrast that no verdict holds."""
    match = _HYPOTHESIS.fullmatch(word)
    known = [*(f"multi-{arm}" for arm in arms if arm != "multi"), "coarse-none", "fine-none"]
    if match is None or match[1] not in known:
        raise ValueError(
            f"{word!r} is no hypothesis; expected for example multi-fine>0, of {', '.join(known)}"
        )
    return {
        "contrast": match[1],
        "sign": "greater" if match[2] == ">" else "less",
        "outcome": "concept",
    }


def placed(
    intention: Intention, number: int, previous: str | None, registered_at: str
) -> Registration:
    """Return an intention in its place of the chain, sealed."""
    content = {
        **intention,
        "layout": LAYOUT,
        "number": number,
        "previous": previous,
        "registered_at": registered_at,
    }
    return cast(Registration, {**content, "digest": digest(content)})


def seal_of(record: Registration) -> str:
    """Return the digest that a record ought to have."""
    return digest({key: value for key, value in record.items() if key != "digest"})


def check_chain(records: Sequence[Registration]) -> None:
    """Raise BrokenChain where a record is not what it was, or not where it was."""
    previous: str | None = None
    for place, record in enumerate(records, start=1):
        if not isinstance(record, dict) or record.get("digest") != seal_of(record):
            raise BrokenChain(f"registration {place} was edited after it was written")
        if record.get("number") != place or record.get("previous") != previous:
            raise BrokenChain(f"registration {place} does not follow the one before it")
        previous = record["digest"]


def in_force(records: Sequence[Registration]) -> InForce | None:
    """Return what is in force of the records of one experiment, None where it intended nothing."""
    intention = opening = None
    for record in records:
        if "opened" not in record:
            intention, opening = record, None
        elif intention is not None and record["opened"] == intention["digest"]:
            opening = record
    return None if intention is None else InForce(intention, opening)
