"""``verdict.json`` of a steering."""

from __future__ import annotations

from typing import TypedDict


class ContrastRecord(TypedDict):
    """A mean paired difference between two arms, with its intervals and p."""

    contrast: str
    estimate: float | None
    low: float | None
    high: float | None
    low_90: float | None
    high_90: float | None
    n: int
    groups: int
    sd: float | None
    shared_sd: float | None
    p_greater: float | None
    p_less: float | None
    p_above_zero: float | None
    p_below_zero: float | None
    p_above_margin: float | None
    p_below_margin: float | None
    p_two_sided: float


class SecondaryRecord(ContrastRecord):
    """A contrast of a further outcome; ``p_holm`` is corrected over all of them."""

    outcome: str
    p_holm: float


class WordPValues(TypedDict):
    """The p of each word that a verdict can say."""

    supported: float
    refuted: float
    no_difference: float


class AssayRecord(TypedDict):
    """The better single arm, and why the run could not have shown a difference, if it could not."""

    arm: str
    rate: float
    effect: ContrastRecord
    doubt: str | None


class BudgetErrorRecord(TypedDict):
    """What the error of the arms' budgets adds to a contrast."""

    contrast: str
    log_ratio_sd: float | None
    slope: float | None
    shared_sd: float | None


class BudgetRecord(TypedDict):
    """On how many texts the budgets of the arms rest."""

    unit: str
    texts: int
    positions_per_text: int
    errors: list[BudgetErrorRecord]


class BesidePromptRecord(TypedDict):
    """An arm at the KL of the system prompt, or the ``reason`` why that cannot be known."""

    arm: str
    rate: float | None
    contrast: ContrastRecord | None
    reason: str | None


class SystemPromptRecord(TypedDict):
    """The system prompt beside a placebo of the same length and beside the arms."""

    kl: float
    placebo_kl: float | None
    placebo: ContrastRecord | None
    arms: list[BesidePromptRecord]


class ProbeRecord(TypedDict):
    """The linear probe: its hook, how well it tells ``prompts`` (target, neutral) apart."""

    hook: str
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    prompts: list[int]


class DecisionRecord(TypedDict):
    """The verdict with what it rests on; ``contrast`` to ``high`` are of the binding contrast.

    ``n`` counts openings, ``n_needed`` and ``samples_needed`` those of the cheapest run that would
    detect ``min_difference``. ``missing`` maps an arm that could not be built to the reason.
    """

    verdict: str
    reason: str
    contrast: str | None
    estimate: float | None
    low: float | None
    high: float | None
    p: WordPValues | None
    p_intersection_union: float | None
    n: int
    n_needed: int | None
    samples_needed: int | None
    share_within_openings: float | None
    detectable_difference: float | None
    min_difference: float
    max_arm_cosine: float
    arm_cosines: dict[str, float]
    assay: AssayRecord | None
    contrasts: list[ContrastRecord]
    intact: list[ContrastRecord]
    secondary: list[SecondaryRecord]
    missing: dict[str, str]


class VerdictDocument(DecisionRecord):
    """The whole document; ``budget`` is None where strengths are norms."""

    budget: BudgetRecord | None
    system_prompt: SystemPromptRecord | None
    probe: ProbeRecord
