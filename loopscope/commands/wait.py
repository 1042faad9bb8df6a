"""``wait``: block until a condition holds. For scripts."""

from __future__ import annotations

import re
import time
from typing import Annotated, get_args

import typer

from loopscope.context import CommandError, find, split_name
from loopscope.specs.status import ConditionType
from loopscope.state.records import ObjectRecord

POLL_SECONDS = 0.2


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("wait")(wait)


def wait(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="KIND NAME", help="Which object.")],
    condition: Annotated[
        str, typer.Option("--for", help="condition=Ready, or another condition, or delete.")
    ],
    timeout: Annotated[str, typer.Option(help="Give up after this long: 30s, 10m, 2h.")] = "30s",
) -> None:
    """Wait until the condition is True for the current generation. Exit 1 on timeout."""
    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"wait needs a name: loopscope wait {kind.lower()} NAME --for=…")
    type_ = _condition_type(condition)
    seconds = _seconds(timeout)
    state = context.obj.open_existing()
    deadline = time.monotonic() + seconds
    while True:
        try:
            with state.database.read() as connection:
                records = find(connection, kind, context.obj.namespace, name)
        except CommandError:
            if condition == "delete":
                return
            raise
        if type_ and all(r.status.is_true(type_, r.generation) for r in records):
            print(f"{', '.join(str(r.key) for r in records)}: {type_}")
            return
        if time.monotonic() >= deadline:
            why = _why(records[0])
            raise CommandError(f"timed out after {timeout} waiting for {condition}{why}", 1)
        time.sleep(POLL_SECONDS)


def _why(record: ObjectRecord) -> str:
    seen, wanted = record.status.observed_generation, record.generation
    if seen != wanted:
        return (
            f"; generation {wanted} has not been looked at (last: {seen}); "
            "is a controller running? start `loopscope run` or `loopscope controller`"
        )
    ready = record.status.condition("Ready")
    return f"; {ready.reason}: {ready.message}" if ready else ""


def _condition_type(text: str) -> ConditionType | None:
    if text == "delete":
        return None
    name = text.removeprefix("condition=")
    for known in get_args(ConditionType):
        if known.lower() == name.lower() and text.startswith("condition="):
            return known  # type: ignore[no-any-return]
    known = ", ".join(get_args(ConditionType))
    raise CommandError(f"expected --for=condition=TYPE with TYPE in {known}; or --for=delete")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)?", text)
    if match is None:
        raise CommandError(f"--timeout {text!r} is not a duration; expected for example 90s or 10m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"]
