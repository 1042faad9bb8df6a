"""``wait``: block until a condition holds. For scripts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from loopscope.commands.object_words import complete_object
from loopscope.commands.options import duration
from loopscope.context import (
    EXIT_WAIT_STALLED,
    CommandError,
    Globals,
    NotFound,
    find,
    split_name,
)
from loopscope.jsonpath import find as values_at
from loopscope.jsonpath import text_of
from loopscope.reconcilers.references import child_key
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import OWNER_KINDS, nodes_of
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.folder import has_database
from loopscope.state.records import ObjectRecord
from loopscope.views.awaited import Awaited, read_awaited
from loopscope.views.documents.objects import object_document
from loopscope.views.present import present

POLL_SECONDS = 0.2
Look = Callable[[], list[ObjectRecord]]
"""Return the objects that are waited for; none while they are still to come."""

EXAMPLES = {
    "wait": (
        "wait experiment france --for=condition=Ready --timeout 2h",
        "wait experiment france --for=condition=Reconciling=False",
        "wait experiment france --for=jsonpath={.status.summary.gate}=GO",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("wait")(wait)


def wait(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="KIND NAME", help="Which object.", autocompletion=complete_object),
    ],
    condition: Annotated[
        str,
        typer.Option(
            "--for", help="condition=TYPE[=STATUS], jsonpath={.path}=VALUE, create or delete."
        ),
    ],
    timeout: Annotated[str, typer.Option(help="Give up after this long: 30s, 10m, 2h.")] = "30s",
) -> None:
    """Wait until a condition is True for the current generation, or a field has a value.

    Exit 1 on timeout, 4 at once when the object is Stalled: then it is you who must act.
    """
    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"wait needs a name: loopscope wait {kind.lower()} NAME --for=…")
    awaited = _awaited(condition)
    deadline = time.monotonic() + _seconds(timeout)
    look = _look(context.obj, kind, name, awaited)
    while True:
        try:
            records = look()
        except NotFound:
            if awaited.form == "delete":
                return
            raise
        if _is_met(records, awaited):
            print(f"{', '.join(str(r.key) for r in records)}: {awaited.words}")
            return
        if not awaited.survives_stall:
            _end_if_stalled(records, condition)
        if time.monotonic() >= deadline:
            why = _why(records[0]) if records else "; it does not exist yet"
            raise CommandError(f"timed out after {timeout} waiting for {condition}{why}", 1)
        time.sleep(POLL_SECONDS)


def _look(options: Globals, kind: str, name: str, awaited: Awaited) -> Look:
    """Return how to look for the objects.

    Looking raises NotFound for an object that no experiment will make, and CommandError when the
    experiment that should make it is Stalled.
    """
    if awaited.form == "create" and not has_database(options.state_path):
        return _look_later(options, kind, name, awaited)
    state = options.open_to_read()

    def look() -> list[ObjectRecord]:
        with state.database.read() as connection:
            try:
                return present(connection, find(connection, kind, options.namespace, name))
            except NotFound as missing:
                if awaited.form == "create":
                    return []
                makers = _makers(connection, kind, options.namespace, name)
                if awaited.form == "delete" or not makers:
                    hint = (
                        "" if awaited.form == "delete" else "; --for=create waits until it exists"
                    )
                    raise NotFound(f"{missing}{hint}", 1) from None
        _end_if_stalled(makers, awaited.form)
        return []

    return look


def _look_later(options: Globals, kind: str, name: str, awaited: Awaited) -> Look:
    """Return how to look while the state folder does not exist yet."""
    opened: list[Look] = []

    def look() -> list[ObjectRecord]:
        if not opened and not has_database(options.state_path):
            return []
        if not opened:
            opened.append(_look(options, kind, name, awaited))
        return opened[0]()

    return look


def _makers(connection: Connection, kind: str, namespace: str, name: str) -> list[ObjectRecord]:
    """Return the experiments and sweeps that are about to make an object of that name."""
    return [
        one
        for owner in OWNER_KINDS
        for one in objects.listed(connection, owner, namespace)
        if any(key.kind == kind and name in (key.name, one.key.name) for key in _to_make(one))
    ]


def _to_make(record: ObjectRecord) -> Iterator[Key]:
    """Yield the objects that an experiment's spec stands for, those of its cells as well."""
    from loopscope.reconcilers.experiment import owned_experiments

    owners = [(record.key, record.spec)]
    cells = owned_experiments(record)
    if cells is not None:
        owners = [(cell.key, cell.spec) for cell in cells]
        yield from (key for key, _ in owners)
    for key, spec in owners:
        yield from (child_key(key, node.name) for node in nodes_of(spec))


def _is_met(records: list[ObjectRecord], awaited: Awaited) -> bool:
    match awaited.form:
        case "create":
            return bool(records)
        case "delete":
            return False
        case "condition":
            return bool(records) and all(map(awaited.has_status, records))
        case "jsonpath":
            return bool(records) and all(_has_value(record, awaited) for record in records)


def _has_value(record: ObjectRecord, awaited: Awaited) -> bool:
    """Whether one of the values at the path is the one that is waited for."""
    try:
        values = values_at(awaited.path, object_document(record))
    except LookupError:  # a place that the list has not yet
        return False
    texts = [text_of(value) for value in values if value is not None]
    return awaited.value in texts if awaited.value is not None else bool(texts)


def _end_if_stalled(records: list[ObjectRecord], condition: str) -> None:
    """Raise CommandError when one of the objects stands still as it is: no waiting helps."""
    for record in records:
        if record.status.is_true("Stalled", record.generation):
            stalled = record.status.condition("Stalled")
            why = f"{stalled.reason}: {stalled.message}" if stalled else ""
            where = f"{record.key.kind.lower()} {record.key.name}"
            raise CommandError(
                f"{record.key} is Stalled, so {condition} will not come by itself; {why}; "
                f"see `loopscope why {where}`",
                EXIT_WAIT_STALLED,
            )


def _why(record: ObjectRecord) -> str:
    seen, wanted = record.status.observed_generation, record.generation
    if seen != wanted:
        return (
            f"; generation {wanted} has not been looked at (last: {seen}); "
            "is a controller running? start `loopscope run` or `loopscope controller`"
        )
    ready = record.status.condition("Ready")
    return f"; {ready.reason}: {ready.message}" if ready else ""


def _awaited(text: str) -> Awaited:
    try:
        found = read_awaited(text)
        if found.form == "jsonpath":
            values_at(found.path, {})
    except LookupError:
        pass  # a place in a list that the empty document has not
    except ValueError as error:
        raise CommandError(f"--for: {error}") from None
    return found


def _seconds(text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise CommandError(f"--timeout {error}") from None
