"""``top``: the workers, what they hold, do and take."""

from __future__ import annotations

import json
from typing import Annotated, TypedDict

import typer

from loopscope.context import CommandError
from loopscope.reports.tables.workers import workers_table
from loopscope.terminal.columns import show
from loopscope.views.workers import WorkerView, workers_of

EXAMPLES = {
    "top": ("top", "top -o json"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("top")(top)


def top(
    context: typer.Context,
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
) -> None:
    """Print each worker with its model, memory, processor time, job and tokens a second."""
    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    context.obj.refuse_namespace("top")
    with context.obj.open_to_read().database.read() as connection:
        found = workers_of(connection)
    if output == "json":
        print(json.dumps([_document(one) for one in found], indent=2))
    elif not found:
        print("No workers.")
    else:
        show(workers_table(found))


class _Document(TypedDict):
    """A worker as ``top -o json`` prints it; null: not known, or it idles."""

    worker: str
    device: str
    model: str | None
    memoryBytes: int | None
    processorSeconds: float | None
    job: int | None
    object: str | None
    phase: str | None
    tokensPerSecond: float | None


def _document(one: WorkerView) -> _Document:
    speed = one.tokens_per_second
    return {
        "worker": one.name,
        "device": one.device,
        "model": one.model,
        "memoryBytes": one.memory_bytes,
        "processorSeconds": one.processor_seconds,
        "job": one.job.id if one.job is not None else None,
        "object": str(one.job.object) if one.job is not None else None,
        "phase": one.progress.phase if one.progress is not None else None,
        "tokensPerSecond": None if speed is None else round(speed, 1),
    }
