"""``dictionaries``: what SAELens' registry offers, and what of it can be used."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from loopscope.context import CommandError
from loopscope.reports.text_table import TextTable
from loopscope.terminal.columns import show
from loopscope.views.numbers import MISSING

if TYPE_CHECKING:
    from loopscope.inputs.registered import RegisteredDictionary

COLUMNS = ["RELEASE", "ID", "HOOK", "USABLE", "NOTE"]

EXAMPLES = {
    "dictionaries": (
        "dictionaries --model gemma-2-2b",
        "dictionaries --release gpt2-small-res-jb -o json",
    ),
}


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
    protections: Annotated[
        bool,
        typer.Option("--protections", help="Instead: what seals the reading of pickles here."),
    ] = False,
) -> None:
    """List the dictionaries of SAELens' registry: usable, or why not. Needs no network.

    Without a filter their counts are printed.
    """
    from loopscope.inputs.errors import InputRefused  # late: help must stay quick
    from loopscope.inputs.registered import counts, is_at, registered_dictionaries

    if protections:
        _print_protections()
        return
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
        print(f"{usable} of {len(found)} are usable ({usable / len(found):.1%}).")


def _document(one: RegisteredDictionary) -> dict[str, str | bool | None]:
    return {
        "release": one.release,
        "id": one.id,
        "model": one.model,
        "hook": one.hook_name,
        "usable": one.usable,
        "reason": one.reason,
        "convert": "sealed" if one.pickled else None,
        "steered": one.usable and not one.whole_texts,
    }


def _row(one: RegisteredDictionary) -> list[str]:
    usable = "True" if one.usable else "False"
    asked = "convert: sealed" if one.pickled else "no steering" if one.whole_texts else MISSING
    note = one.cause or asked
    return [one.release, one.id, one.hook_name or MISSING, usable, note]


def _print_protections() -> None:
    """Print which protections of the child that reads pickles hold on this machine."""
    from loopscope.worker.sealed import protections

    asked = [sys.executable, "-I", "-m", protections.__name__]
    answer = subprocess.run(asked, capture_output=True, check=True, cwd="/", env={}, text=True)
    held = json.loads(answer.stdout)
    rows = [[name, str(name in held), what] for name, what in protections.NAMES.items()]
    show(TextTable(["PROTECTION", "HOLDS", "MEANS"], rows))
