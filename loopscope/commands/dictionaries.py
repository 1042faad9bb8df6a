"""``dictionaries``: what SAELens' registry offers, and what of it can be used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from loopscope.context import CommandError
from loopscope.reports.text_table import TextTable
from loopscope.terminal.columns import show
from loopscope.views.numbers import MISSING

if TYPE_CHECKING:
    from loopscope.inputs.registered import RegisteredDictionary

COLUMNS = ["RELEASE", "ID", "HOOK", "USABLE", "WHY-NOT"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("dictionaries")(dictionaries)


def dictionaries(
    release: Annotated[
        str | None, typer.Option("--release", help="Those of one SAELens release.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Those of one model, by any of its usual names.")
    ] = None,
    hook: Annotated[
        str | None,
        typer.Option(
            "--hook", help="Those of one hook: blocks.12.hook_resid_post, or without block."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="json: release, id, usable, reason and more."),
    ] = None,
) -> None:
    """List the dictionaries of SAELens' registry: usable, or why not. Needs no network.

    Without a filter their counts are printed.
    """
    from loopscope.inputs.errors import InputRefused  # late: help must stay quick
    from loopscope.inputs.registered import counts, is_at, registered_dictionaries

    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    try:
        everything = registered_dictionaries(release, model)
        found = [one for one in everything if hook is None or is_at(one, hook)]
    except InputRefused as refused:
        raise CommandError(f"{refused.field}: {refused.message}") from None
    if output == "json":
        print(json.dumps([_document(one) for one in found], indent=2))
    elif not found:
        print("The registry has no such dictionary.")
    elif release or model or hook:
        show(TextTable(COLUMNS, [_row(one) for one in found]))
    else:
        rows = [[loader, cause or "usable", str(n)] for (loader, cause), n in counts(found)]
        show(TextTable(["LOADER", "USABLE OR WHY NOT", "DICTIONARIES"], rows))
        usable = sum(one.usable for one in found)
        print(f"{usable} of {len(found)} are usable ({usable / len(found):.0%}).")


def _document(one: RegisteredDictionary) -> dict[str, str | bool | None]:
    return {
        "release": one.release,
        "id": one.id,
        "model": one.model,
        "hook": one.hook_name,
        "usable": one.usable,
        "reason": one.reason,
    }


def _row(one: RegisteredDictionary) -> list[str]:
    usable = "True" if one.usable else "False"
    return [one.release, one.id, one.hook_name or MISSING, usable, one.cause or MISSING]
