"""Files of a drift: effects of each anchor by distance, samples by temperature, what follows."""

from __future__ import annotations

from typing import TypedDict

from loopscope.specs.artifact_files import Column, Document, Table

_OPENING = Column("prompt_id", "text", "as in `steering_samples.parquet`")
_ANCHOR = Column(
    "anchor",
    "text",
    "`systemPrompt`, `otherWords` (as many other words: the control), `steeredPrefix` (the "
    "placebo, its tokens steered), `steering` (every token steered)",
)
_DISTANCE = Column("distance", "int32", "filler between the anchor and the opening", "tokens")
_AGAIN = Column(
    "again", "bool", "the anchor stands behind the filler, right before the opening: the control"
)
_TEMPERATURE = Column("temperature", "float64", "tokens are drawn from p^(1/T)")
_LOW = Column("kl_low", "float64", "lower end of its 95 % interval", "nats")

POINTS = Table(
    name="drift_points.parquet",
    about="what each anchor does to the next token after an opening, beside the placebo",
    bundled="drift",
    columns=(
        _OPENING,
        Column("filler", "int32", "which filler stands between; those that share one are a group"),
        _ANCHOR,
        _DISTANCE,
        _AGAIN,
        Column("kl", "float64", "KL(unanchored ‖ anchored) of the next token", "nats"),
        Column("concept", "float64", "probability of a concept token, anchored", "0 to 1"),
        Column("concept_unanchored", "float64", "the same behind the unsteered placebo", "0 to 1"),
    ),
)
CURVE = Table(
    name="drift_curve.parquet",
    about="means over openings with 95 % intervals: the curve of each anchor",
    bundled="drift",
    columns=(
        _ANCHOR,
        _DISTANCE,
        _AGAIN,
        Column("kl", "float64", "mean of `kl`", "nats"),
        _LOW,
        Column("kl_high", "float64", "upper end", "nats"),
        Column("concept", "float64", "mean of `concept` − `concept_unanchored`"),
        Column("concept_low", "float64", "lower end of its 95 % interval"),
        Column("concept_high", "float64", "upper end"),
        Column("n", "int32", "openings"),
    ),
)
WANDER_SAMPLES = Table(
    name="wander_samples.parquet",
    about="samples right after each anchor, by temperature",
    bundled="drift",
    columns=(
        _OPENING,
        Column("anchor", "text", "as in `drift_points.parquet`, or `none`: the unsteered placebo"),
        _TEMPERATURE,
        Column("text", "text", "what was generated"),
        Column(
            "wander",
            "float64",
            "KL(q ‖ p) a token, mean over steps: q what is drawn from, p the anchored distribution "
            "at temperature 1",
            "nats",
        ),
        Column("surprisal", "float64", "−log p of the drawn token, mean over steps", "nats"),
        Column("concept_mass", "float64", "probability of a concept token under p, mean", "0 to 1"),
        Column("concept", "float64", "1 when the text holds a word of the lexicon", "0 or 1"),
    ),
)
WANDER_GRID = Table(
    name="wander_grid.parquet",
    about="the grid of temperature and anchor: means over openings with 95 % intervals",
    bundled="drift",
    columns=(
        Column("anchor", "text", "as in `wander_samples.parquet`"),
        _TEMPERATURE,
        Column("wander", "float64", "mean of `wander`", "nats"),
        Column("wander_low", "float64", "lower end of its 95 % interval", "nats"),
        Column("wander_high", "float64", "upper end", "nats"),
        Column("surprisal", "float64", "mean of `surprisal`", "nats"),
        Column("concept", "float64", "share of texts with a word of the lexicon", "0 to 1"),
        Column("concept_low", "float64", "lower end of its 95 % interval", "0 to 1"),
        Column("concept_high", "float64", "upper end", "0 to 1"),
        Column("gain", "float64", "mean of `concept_mass` less that of `none`, paired by opening"),
        Column("gain_low", "float64", "lower end of its 95 % interval"),
        Column("gain_high", "float64", "upper end"),
        Column("n", "int32", "openings"),
    ),
)


class DriftOutcome(TypedDict):
    """One anchor in one outcome (``kl`` in nats, ``concept`` a probability): near and far.

    ``difference`` is near minus far, ``p`` one-sided that it is above 0, ``p_holm`` corrected over
    all of the document. ``half_life`` is in tokens; None: not reached, or no effect to be halved.
    ``again`` is the effect of the anchor behind the longest filler; None for an anchor that is
    never repeated.
    """

    anchor: str
    outcome: str
    near: float
    near_low: float
    near_high: float
    far: float
    far_low: float
    far_high: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    fade: str
    half_life: float | None
    half_life_low: float | None
    half_life_high: float | None
    again: float | None
    again_low: float | None
    again_high: float | None


class Drift(TypedDict):
    """How the drift was measured, and what came of it."""

    arm: str
    strength: float
    norm: float
    distances: list[int]
    fillers: int
    filler_tokens: int
    openings: int
    anchor_tokens: int
    concept_tokens: list[str]
    temperatures: list[float]
    outcomes: list[DriftOutcome]


DRIFT = Document(
    name="drift.json",
    about="half-lives and tests of each anchor, and what they were measured with",
    bundled="drift",
    shape=Drift,
)

FILES = (POINTS, CURVE, WANDER_SAMPLES, WANDER_GRID, DRIFT)
