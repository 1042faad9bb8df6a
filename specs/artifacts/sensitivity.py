"""Sensitivity of a verdict: a table of the bundle and of notebooks that no stage writes."""

from __future__ import annotations

from loopscope.specs.artifact_files import Column, Table, alike

SENSITIVITY = Table(
    name="sensitivity.parquet",
    about="the verdict under other choices than the declared ones, one row a choice",
    bundled="",
    columns=(
        Column(
            "axis",
            "text",
            "`declared` (the verdict itself), `minDifference`, `lexicon`, `outcome`, `strength`, "
            "`sampling`, `openings`, `anchor`",
        ),
        Column("setting", "text", "what was chosen otherwise"),
        Column(
            "source",
            "text",
            "`declared`; `same texts`: computed from the stored texts and scores; `other run`: an "
            "experiment of the same namespace whose spec differs in this choice alone; `not run`",
        ),
        Column("verdict", "text", "the word; empty where nothing was run"),
        Column("contrast", "text", "the contrast that decides: the smaller primary one"),
        *alike(
            ("estimate", "low", "high"),
            Column("", "float64", "its mean with the 95 % interval; null where it is not known"),
        ),
        Column("n", "int64", "openings; null where nothing was run", "openings"),
        Column(
            "changed", "bool", "whether the word is not the declared one; null where there is none"
        ),
        Column("note", "text", "what the choice is, which run it was, or what to write for one"),
    ),
)
