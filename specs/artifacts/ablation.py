"""Files of an ablation: what each prompt loses, which latents were taken out, what follows."""

from __future__ import annotations

from typing import TypedDict

from loopscope.specs.artifact_files import Column, Document, Table

_PART = Column("part", "text", "`anchor` (the steered one), `children` (its fine ones), or `both`")
_CONTROL = Column(
    "control",
    "text",
    "empty for the latents of the part itself; `alikeInText`, `alikeOnPrompts`: matched ones in "
    "their place",
)
_DRAW = Column("draw", "int32", "which set of matched latents; 0 for the part itself")

LOSSES = Table(
    name="ablation_losses.parquet",
    about="what each target prompt loses where latents are taken out of the stream",
    bundled="ablation",
    columns=(
        Column("prompt_id", "text", "as in `prompts.parquet`"),
        _PART,
        _CONTROL,
        _DRAW,
        Column(
            "loss",
            "float64",
            "log probability of a concept token after the prompt, less that with the latents out",
            "nats",
        ),
        Column("kl", "float64", "KL(clean ‖ ablated) of the next token", "nats"),
        Column("removed", "float64", "length of what is taken out at the prompt's last token"),
        Column("clean", "float64", "log probability of a concept token, nothing taken out", "nats"),
    ),
)
ABLATED = Table(
    name="ablated_latents.parquet",
    about="the latents that were taken out",
    bundled="ablation",
    columns=(
        _PART,
        _CONTROL,
        _DRAW,
        Column("side", "text", "`coarse` or `fine`"),
        Column("latent", "int32", "its number in the dictionary"),
        Column("stands_for", "int32", "the latent that it is matched to; its own number for none"),
    ),
)


class AblationContrast(TypedDict):
    """What a part loses beyond nothing or a control: mean over prompts, one-sided p.

    ``between_draws`` is the standard error that the choice of matched latents adds (None for the
    contrast with nothing, or one draw).
    """

    part: str
    against: str
    estimate: float
    low: float
    high: float
    p: float
    p_holm: float
    between_draws: float | None


class AblationAnswer(TypedDict):
    """What is said of one part: ``used``, ``lost no more than matched``, ``no loss shown``."""

    part: str
    answer: str
    loss: float
    low: float
    high: float
    kl: float
    removed: float


class Ablation(TypedDict):
    """How it was measured, and what came of it."""

    hook: str
    anchor: int
    children: list[int]
    prompts: int
    held_out: bool
    concept_tokens: list[str]
    draws: dict[str, int]
    answers: list[AblationAnswer]
    contrasts: list[AblationContrast]


ABLATION = Document(
    name="ablation.json",
    about="contrasts and answers of each part, and what they were measured with",
    bundled="ablation",
    shape=Ablation,
)

FILES = (LOSSES, ABLATED, ABLATION)
