"""``get``: what exists."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from loopscope.commands.object_words import complete_object
from loopscope.commands.options import OutputOption
from loopscope.commands.selection import (
    EverywhereOption,
    FieldSelectorOption,
    Selection,
    SelectorOption,
    SortOption,
    selection_of,
)
from loopscope.context import CommandError, NotFound
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord
from loopscope.terminal.columns import show
from loopscope.terminal.documents import check_output, is_table, print_documents
from loopscope.terminal.object_tables import TableForm, object_table
from loopscope.terminal.printable import printable
from loopscope.views.present import present
from loopscope.views.stages import by_owner, descendants

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="KIND [NAME]",
        help="For example `experiment france`, `experiment/france`, `cap,map`, `exp a b`, `all`.",
        autocompletion=complete_object,
    ),
]

EXAMPLES = {
    "get": (
        "get experiments",
        "get all",
        "get mapping/france-mapping -o yaml",
        "get experiments -l team=geo --watch",
        "get exp france -o jsonpath={.status.summary.gate}",
        "get exp --sort-by .status.summary.estimate --field-selector status.summary.gate=GO",
        "get exp -o custom-columns=NAME:.metadata.name,GATE:.status.summary.gate",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("get")(get)


def get(
    context: typer.Context,
    words: Words,
    output: OutputOption = None,
    selector: SelectorOption = None,
    field_selector: FieldSelectorOption = None,
    sort_by: SortOption = None,
    everywhere: EverywhereOption = False,
    show_labels: Annotated[
        bool, typer.Option("--show-labels", help="All labels, in a last column.")
    ] = False,
    label_columns: Annotated[
        str | None, typer.Option("--label-columns", "-L", help="A column for each: a,b.")
    ] = None,
    no_headers: Annotated[
        bool, typer.Option("--no-headers", help="Leave out the names of the columns.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on, and print what changes.")
    ] = False,
    watch_only: Annotated[
        bool, typer.Option("--watch-only", help="Print what changes from now on.")
    ] = False,
) -> None:
    """Print objects: one line each, in full with -o yaml or json, or parts with -o jsonpath=….

    `all` stands for every kind, and -o custom-columns=NAME:PATH,… for columns of your own.
    """
    check_output(output)
    wanted = selection_of(
        context.obj, words, selector, field_selector, sort_by, everywhere=everywhere
    )
    form = TableForm(
        wide=output == "wide",
        namespaces=everywhere,
        kinds=len(wanted.kinds) > 1,
        labels=show_labels,
        columns=tuple(label_columns.split(",")) if label_columns else (),
        headers=not no_headers,
    )
    if not is_table(output) and (show_labels or label_columns):
        raise CommandError("--show-labels and --label-columns need a table; leave out --output")
    state = context.obj.open_to_read()
    if watch or watch_only:
        _watch(state, wanted, output, form, only_changes=watch_only)
        return
    missing: list[NotFound] = []
    with state.database.read() as connection:
        found = wanted.by_kind(connection, missing=missing)
        records = [record for group in found.values() for record in group]
        owned = _owned(connection, records, wanted) if is_table(output) else {}
    if missing and not records:
        pass
    elif not is_table(output):
        print_documents(records, output, single=wanted.names_one, headers=not no_headers)
    elif not records:
        print(wanted.nothing_found, file=sys.stderr if no_headers else sys.stdout)
    else:
        _print_tables(found, owned, form)
    for unknown in missing[:-1]:
        print(printable(f"error: {unknown}"), file=sys.stderr)
    if missing:  # what is there was printed
        raise missing[-1]


def _print_tables(
    found: dict[str, list[ObjectRecord]], owned: dict[str, list[ObjectRecord]], form: TableForm
) -> None:
    tables = [object_table(kind, group, owned, form) for kind, group in found.items() if group]
    for number, table in enumerate(tables):
        if number:
            print()
        show(table, headers=form.headers)
    for record in (record for group in found.values() for record in group):
        refused = record.status.condition("SourceValid")
        if refused is not None:
            print(f"{record.key}: its file is refused: {refused.message}", file=sys.stderr)


def _owned(
    connection: Connection, records: list[ObjectRecord], wanted: Selection
) -> dict[str, list[ObjectRecord]]:
    """Return what experiments own, by their uid; nothing else owns anything."""
    if not any(record.key.kind in OWNER_KINDS for record in records):
        return {}
    if any(one.kind in OWNER_KINDS and one.name is None for one in wanted.asked):
        everything = objects.listed(connection, namespace=wanted.namespace)
        return by_owner(present(connection, everything))
    return by_owner(present(connection, descendants(connection, records)))


def _watch(
    state: StateFolder,
    wanted: Selection,
    output: str | None,
    form: TableForm,
    *,
    only_changes: bool,
) -> None:
    """Print what there is, then what changes, until interrupted."""
    from loopscope.terminal.watching import POLL_SECONDS, WatchedTable, changes_of

    def select(connection: Connection) -> list[ObjectRecord]:
        """A named object that goes away while it is watched is gone, not a mistake."""
        return wanted.records(connection, missing=[])

    headers = form.headers
    if not is_table(output):
        for records in changes_of(state, select, only_changes=only_changes):
            for record in records:
                print_documents([record], output, single=True, headers=headers)
                headers = False
        return
    if len(wanted.kinds) > 1:
        raise CommandError("a table is watched for one kind; name one, or give another --output")
    with state.database.read() as connection:
        wanted.records(connection)  # raises with what is wrong with the name
    table = WatchedTable(state, wanted.kinds[0], wanted.namespace, select, form, only_changes)
    while True:
        for line in table.lines():
            print(line, flush=True)
        time.sleep(POLL_SECONDS)
