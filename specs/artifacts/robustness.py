"""Robustness of the arms: tables of the bundle and of notebooks that no stage writes."""

from __future__ import annotations

from loopscope.specs.artifact_files import Column, Table, alike

_RUN = (
    Column("axis", "text", "`declared` (the run itself), `sampling`, `openings`"),
    Column("setting", "text", "by which rule was drawn, or which openings were continued"),
    Column("experiment", "text", "the experiment that ran it, of the same namespace"),
    Column("arm", "text", "as in `arms.parquet`; all random directions are one arm, `random`"),
)
ROBUSTNESS = Table(
    name="robustness.parquet",
    about="what each arm did under other sampling rules and other openings",
    bundled="",
    columns=(
        *_RUN,
        Column("openings", "int64", "how many were continued", "openings"),
        Column("rate", "float64", "texts with the concept, over the strengths that coarse, fine "
               "and multi all reached", "0 to 1"),
        *alike(("low", "high"), Column("", "float64", "its 95 % interval", "0 to 1")),
        Column("effect", "float64", "the rate less that of unsteered text, paired by opening; "
               "null for `none`"),
        *alike(("effect_low", "effect_high"), Column("", "float64", "its 95 % interval")),
        Column("wrong_way", "float64", "openings whose score fell below that of unsteered text; "
               "chance moves some; null for `none`", "0 to 1"),
        *alike(("wrong_low", "wrong_high"), Column("", "float64", "its 95 % interval", "0 to 1")),
    ),
)  # fmt: skip
ROBUSTNESS_TEXTS = Table(
    name="robustness_texts.parquet",
    about="the scores that `robustness.parquet` is made of",
    bundled="",
    columns=(
        *_RUN,
        Column("prompt_id", "text", "the opening's number in its own experiment"),
        Column("sample", "int64", "number of the sample"),
        Column("group", "int64", "openings that belong together; null where each stands alone"),
        Column("strengths", "int64", "strengths that the score is a mean over", "strengths"),
        Column("score", "float64", "share of its texts with the concept", "0 to 1"),
    ),
)
