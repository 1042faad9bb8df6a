"""``api-resources``: the kinds of objects that there are."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from loopscope.context import CommandError
from loopscope.reports.text_table import TextTable
from loopscope.specs.keys import API_VERSION
from loopscope.specs.pipeline import PLURAL_BY_KIND, SHORT_BY_KIND
from loopscope.terminal.columns import show

EXAMPLES = {
    "api-resources": ("api-resources",),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("api-resources")(api_resources)


def api_resources(
    output: Annotated[str | None, typer.Option("--output", "-o", help="json or name.")] = None,
    no_headers: Annotated[
        bool, typer.Option("--no-headers", help="Leave out the names of the columns.")
    ] = False,
) -> None:
    """Print the kinds, their short names, and whether they belong to a namespace: all do."""
    if output not in (None, "json", "name"):
        raise CommandError(f"unknown output {output!r}; expected json or name")
    rows = [
        [PLURAL_BY_KIND[kind], short, API_VERSION, "true", kind]
        for kind, short in SHORT_BY_KIND.items()
    ]
    if output == "name":
        for row in rows:
            print(row[0])
    elif output == "json":
        names = ("name", "shortName", "apiVersion", "namespaced", "kind")
        documents = [dict(zip(names, row, strict=True)) | {"namespaced": True} for row in rows]
        print(json.dumps(documents, indent=2))
    else:
        columns = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]
        show(TextTable(columns, rows), headers=not no_headers)
