"""Keys of ``verdict.json``, in snake_case; names of arms are those of the spec."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class ContrastRecord(TypedDict):
    """A mean paired difference over openings with its intervals and p; unknown is null."""

    contrast: str
    estimate: float
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


class SecondaryContrast(ContrastRecord):
    """A primary contrast in a further outcome."""

    outcome: str
    p_holm: float


class Assay(TypedDict):
    """Whether a difference could have been seen."""

    arm: str
    rate: float
    effect: ContrastRecord
    doubt: str | None


class WordsP(TypedDict):
    """The p of each word."""

    supported: float
    refuted: float
    no_difference: float


class Probe(TypedDict):
    """The linear probe, and how well it separates the conditions."""

    hook: str
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    prompts: list[int]


class BudgetError(TypedDict):
    """What a contrast owes to budgets that are not quite equal."""

    contrast: str
    log_ratio_sd: float | None
    slope: float | None
    shared_sd: float | None


class Budget(TypedDict):
    """On what the budgets rest, and what that costs each contrast."""

    unit: str
    texts: int
    positions_per_text: int
    errors: list[BudgetError]


class BesidePrompt(TypedDict):
    """An arm at the KL of the system prompt, or the reason why that cannot be known."""

    arm: str
    rate: float | None
    contrast: ContrastRecord | None
    reason: str | None


class SystemPrompt(TypedDict):
    """The system prompt beside its placebo and the arms."""

    kl: float
    placebo_kl: float | None
    placebo: ContrastRecord | None
    arms: list[BesidePrompt]


class Decision(TypedDict):
    """The verdict with what it rests on; ``contrast`` to ``high`` are of the binding contrast."""

    verdict: str
    reason: str
    contrast: str | None
    estimate: float | None
    low: float | None
    high: float | None
    p: WordsP | None
    p_intersection_union: float | None
    n: int
    n_needed: int | None
    samples_needed: int | None
    share_within_openings: float | None
    detectable_difference: float | None
    min_difference: float
    max_arm_cosine: float
    arm_cosines: dict[str, float]
    assay: Assay | None
    contrasts: list[ContrastRecord]
    intact: list[ContrastRecord]
    secondary: list[SecondaryContrast]
    missing: dict[str, str]


class WordsE(TypedDict):
    """The largest e-value of each word by a look."""

    supported: float
    refuted: float
    no_difference: float


class LookRecord(TypedDict):
    """What a look said of the openings by then; ``e`` is null where nothing was testable."""

    openings: int
    verdict: str
    e: WordsE | None


class StoppingRecord(TypedDict):
    """How a steering that may stop early came to its end, look by look."""

    declared: int
    looks: list[LookRecord]


class Stopping(TypedDict):
    """What a verdict holds of the looks; nothing where nobody could look early."""

    stopping: NotRequired[StoppingRecord]


class SteeredAnchor(TypedDict):
    """The coarse latent behind the arms, and how many fine ones are its children."""

    latent: int
    children: int


class Verdict(Decision, Stopping):
    """``verdict.json``: the verdict on steering; what is not known is null."""

    anchor: SteeredAnchor | None
    budget: Budget | None
    system_prompt: SystemPrompt | None
    probe: Probe
