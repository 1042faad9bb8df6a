"""``explain`` and ``schema``: what can be written in a spec, for people and for editors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from loopscope.context import CommandError, kind_of
from loopscope.state.destinations import told_of, write_whole

EXAMPLES = {
    "explain": ("explain experiment.spec.mapping", "explain experiment --recursive"),
    "schema": ("schema -o docs/schema", "schema experiment"),
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("explain")(explain)
    app.command("schema")(schema)


def explain(
    field: Annotated[
        str,
        typer.Argument(metavar="KIND[.FIELD]", help="For example experiment.spec.mapping."),
    ],
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Only the names and types of all fields below.")
    ] = False,
) -> None:
    """Print what a field of a spec means: type, default, bounds, unit, fields below it."""
    from loopscope.explanation import page_of  # late: help must stay quick

    word, *steps = field.strip(".").split(".")
    print("\n".join(page_of(kind_of(word), steps, recursive=recursive)))


def schema(
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND]", help="Leave out for all kinds in one.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Write every schema into this folder instead."
        ),
    ] = None,
) -> None:
    """Print the JSON Schema (draft 2020-12) of a kind, or of all, for editors and other tools."""
    from loopscope.specs.json_schema import as_text, combined_schema, schema_files, schema_of

    if output is None:
        print(as_text(schema_of(kind_of(kind)) if kind else combined_schema()), end="")
        return
    if kind is not None:
        raise CommandError("--output writes the schemas of all kinds; leave out KIND")
    with told_of(output):
        output.mkdir(parents=True, exist_ok=True)
    for name, text in schema_files().items():
        write_whole(output / name, partial(str, text))
        print(output / name)
