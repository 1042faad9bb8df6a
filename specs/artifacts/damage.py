"""Files of a damage: what each arm and strength takes from the model beside what it is for."""

from __future__ import annotations

from dataclasses import replace

from loopscope.specs.artifact_files import Column, Table, alike
from loopscope.specs.artifacts.steering import SAMPLES

_CELL = tuple(SAMPLES.columns[1:3])

DAMAGE = Table(
    name="damage.parquet",
    about="one row an arm, strength and measure",
    bundled="damage",
    columns=(
        *_CELL,
        Column(
            "measure",
            "text",
            "`next_token` (likeliest next token is the one that follows, on ordinary text), "
            "`choices` and its families `capitals`, `arithmetic`, `agreement` (right option is the "
            "likeliest), `wrong_way` and `right_way` (openings with a lower, and a higher concept "
            "score than unsteered), `side:…` (texts with a word of that list)",
        ),
        Column("n", "int64", "texts, items or openings", "texts"),
        *alike(
            ("share", "low", "high"),
            Column("", "float64", "share of them, with Wilson's 95 % interval", "0 to 1"),
        ),
        *alike(
            ("change", "change_low", "change_high"),
            Column(
                "",
                "float64",
                "share less that of unsteered text, paired, with its 95 % interval; NaN for the "
                "unsteered one, and for `wrong_way` and `right_way`, which are changes themselves",
                "−1 to 1",
            ),
        ),
        Column(
            "p_holm",
            "float64",
            "of the change by flipping signs, corrected (Holm) over `next_token`, `choices` and "
            "all sides of all arms and strengths; NaN for what is not among them",
            "0 to 1",
        ),
    ),
)
CHOICES = Table(
    name="choices.parquet",
    about="every item under every arm and strength",
    bundled="damage",
    columns=(
        *_CELL,
        Column("item", "int32", "number of the item"),
        Column("family", "text", "`capitals`, `arithmetic`, `agreement`"),
        Column("prompt", "text", "how the item begins"),
        Column("right", "text", "the option that is right"),
        replace(_CELL[0], name="chosen", meaning="the option that is the likeliest"),
        Column(
            "margin", "float64", "log-probability of the right option less the best other", "nats"
        ),
    ),
)

FILES = (DAMAGE, CHOICES)
