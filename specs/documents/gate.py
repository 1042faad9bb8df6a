"""``gate.json`` of a mapping.

Its own keys are in snake_case; ``minSubfeatures`` is the spec's field of that name.
"""

from __future__ import annotations

from typing import Literal, TypedDict

Verdict = Literal["GO", "NO-GO", "INCONCLUSIVE"]
Rule = Literal["cosine", "strict"]


class SelectionPowerRecord(TypedDict):
    """Whether the selection could have found anything: the p of a perfect latent, and counts."""

    smallest_p: float
    tested: int
    needed: int
    top: int
    prompts_needed: int


class NullRecord(TypedDict):
    """The matched anchors that the candidates were ranked among, and how well they match."""

    anchors: int
    wanted: int
    eligible: int
    rate_difference: float | None
    norm_difference: float | None
    density_difference: float | None
    median_mean_rank: float | None
    at_least_as_high: int


class MaximumRecord(TypedDict):
    """The best candidate's count among the best of matched sets."""

    count: int
    percentile: float | None
    median_count: float | None
    max_count: int | None
    at_least_as_many: int


class ControlNumbers(TypedDict):
    """One control: fine dictionaries that know nothing of the concept, and what they reach."""

    kind: str
    decides: bool
    dictionaries: int
    observed: int
    p: float
    median_count: float
    max_count: int
    effective_dimensions: float | None


class ControlRecord(ControlNumbers):
    """The hardest control that decides, then each."""

    controls: list[ControlNumbers]


class StabilityRecord(TypedDict):
    """How often random halves of the prompts say the same."""

    share: float
    min_share: float
    resamples: int
    outcome: str
    outcomes: dict[str, int]


class ComparisonRecord(TypedDict):
    """What the candidates' children are compared with."""

    best_count: int
    selection: SelectionPowerRecord
    mean_rank: float | None
    percentile: float | None
    min_percentile: float
    rank_rule_passes: bool
    null: NullRecord
    maximum: MaximumRecord
    control: ControlRecord
    stability: StabilityRecord


class AnchorRecord(TypedDict):
    """One candidate with its children by the rule, highest cosine first."""

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


class Shares(TypedDict):
    """How many of all coarse latents, and of those that fire, would pass; no share of nothing."""

    n_all: int
    n_firing: int
    passing_all: int
    passing_firing: int
    share_of_all: float
    share_of_firing: float | None


class OtherRuleShares(Shares):
    """The same by the rule that was not asked for."""

    rule: Rule


class EmptyCorner(TypedDict):
    """Aligned pairs that were never seen together: ``count`` of ``of``."""

    count: int
    of: int
    share: float | None
    unobserved: int


class GateDocument(ComparisonRecord, Shares):
    """The whole document; ``doubts`` speak against a firmer verdict."""

    verdict: Verdict
    doubts: list[str]
    count_rule_passes: bool
    rule: Rule
    minSubfeatures: int
    anchors: list[AnchorRecord]
    steered: int | None
    confirmed: int | None
    confirmation: str
    cautioned: int
    other_rule: OtherRuleShares
    readings: dict[str, int]
    empty_corner_count: int
    empty_corner: EmptyCorner
    reason: str
