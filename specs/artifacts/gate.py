"""Keys of ``gate.json`` and ``directions.json``.

Keys are written in snake_case. One is not: ``minSubfeatures`` has its name from the spec. It stays,
since finished artifacts and users' scripts have it.
"""

from __future__ import annotations

from typing import TypedDict


class GateAnchor(TypedDict):
    """One candidate: its children, highest cosine first, and how it stands among its like."""

    coarse: int
    selectivity: float
    firing_rate_target: float
    children: list[int]
    cosines: list[float]
    passes: bool
    expected: float | None
    rank: float | None
    steered: bool
    confirmed: bool | None
    caution: str | None


class MatchedSets(TypedDict):
    """What the matched anchors are, and how their sets rank."""

    anchors: int
    wanted: int
    eligible: int
    rate_difference: float | None
    norm_difference: float | None
    density_difference: float | None
    median_mean_rank: float | None
    at_least_as_high: int


class LargestCount(TypedDict):
    """The largest count of a candidate beside the largest of each matched set."""

    count: int
    percentile: float | None
    median_count: float | None
    max_count: int | None
    at_least_as_many: int


class GateControl(TypedDict):
    """A control: fine dictionaries that know nothing of the concept, by their largest counts."""

    kind: str
    decides: bool
    dictionaries: int
    observed: int
    p: float
    median_count: float
    max_count: int
    effective_dimensions: float | None


class DecidingControl(GateControl):
    """The control that decides with the largest p, and each of them."""

    controls: list[GateControl]


class Stability(TypedDict):
    """How many halves of the prompts have the same outcome."""

    share: float
    min_share: float
    resamples: int
    outcome: str
    outcomes: dict[str, int]


class SelectionPower(TypedDict):
    """Whether the selection could have found anything."""

    smallest_p: float
    tested: int
    needed: int
    top: int
    prompts_needed: int


class Shares(TypedDict):
    """How many of all coarse latents pass a rule, and of those that fire."""

    n_all: int
    n_firing: int
    passing_all: int
    passing_firing: int
    share_of_all: float
    share_of_firing: float | None


class OtherRule(Shares):
    """The same for the rule that was not chosen."""

    rule: str


class EmptyCorner(TypedDict):
    """Pairs with the cosine of a child that do not fire together."""

    count: int
    of: int
    share: float | None
    unobserved: int


class Comparison(TypedDict):
    """The part of the gate that compares counts with matched anchors, controls and halves."""

    best_count: int
    selection: SelectionPower
    mean_rank: float | None
    percentile: float | None
    min_percentile: float
    rank_rule_passes: bool
    null: MatchedSets
    maximum: LargestCount
    control: DecidingControl
    stability: Stability


class Gate(Comparison, Shares):
    """``gate.json``: the gate's verdict with its numbers; what is not known is null."""

    verdict: str
    doubts: list[str]
    count_rule_passes: bool
    rule: str
    minSubfeatures: int
    anchors: list[GateAnchor]
    steered: int | None
    confirmed: int | None
    confirmation: str
    cautioned: int
    other_rule: OtherRule
    readings: dict[str, int]
    empty_corner_count: int
    empty_corner: EmptyCorner
    reason: str


class Directions(TypedDict):
    """``directions.json``: the latents behind the arms' vectors, the steered anchor first."""

    anchor: int | None
    anchors: list[int]
    children: list[int]
    children_of_all: list[int]
    arms: dict[str, str]
    missing: dict[str, str]
