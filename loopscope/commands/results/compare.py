"""``compare``: two experiments side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from loopscope.commands.object_words import complete_experiment
from loopscope.context import CommandError, experiment_names, find_experiment
from loopscope.terminal.columns import show

EXAMPLES = {
    "compare": ("compare france rome", "compare france france-wide -o json"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


def compare(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="A B", help="Two experiments.", autocompletion=complete_experiment),
    ],
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
    page: Annotated[
        Path | None, typer.Option("--html", help="Write it to this file, as one page.")
    ] = None,
) -> None:
    """Print what differs between two experiments: spec, latents, mapping, verdict."""
    from loopscope.reports.tables.comparison import (
        comparison_table,  # late: tables take a second
    )
    from loopscope.views.comparison import compare as compared
    from loopscope.views.documents.comparison import comparison_document

    if output is not None and page is not None:
        raise CommandError("--output prints and --html writes a file; give one of them")
    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    names = experiment_names(words, "compare")
    if len(names) != 2:
        raise CommandError(f"compare takes two experiments; found {' '.join(names)!r}")
    state = context.obj.open_to_read()
    with state.database.read() as connection:
        first, second = (
            find_experiment(connection, context.obj.namespace, name).key for name in names
        )
    view = compared(state, first, second)
    if output == "json":
        document = comparison_document(view)
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return
    if page is not None:
        from loopscope.reports.page.writing import write_comparison  # late: templates take a second

        print(f"comparison: {write_comparison(view, page)}")
        return
    show(comparison_table(names[0], names[1], view))
    for name, problem in view.problems:
        print(f"{name}: {problem}")
