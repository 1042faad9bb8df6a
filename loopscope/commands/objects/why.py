"""``why``: why an object runs, waits or stands still."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from loopscope.commands.object_words import complete_object
from loopscope.context import CommandError, find_one, now, split_name
from loopscope.terminal.printable import printable
from loopscope.views.documents.explanation import explanation_document
from loopscope.views.explanation import Explanation, Link

DIGEST_CHARACTERS = 12
POLL_SECONDS = 0.5

EXAMPLES = {
    "why": (
        "why experiment france",
        "why experiment france --watch",
        "why steering/france-steering -o json",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("why")(why)


def why(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="KIND NAME", help="The object to explain.", autocompletion=complete_object
        ),
    ],
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on, and explain again when it changes.")
    ] = False,
) -> None:
    """Tell why an object runs, waits or stands still, and who must do what next."""
    from loopscope.commands.limit_options import settings_of_file
    from loopscope.controller.jobs.queue_view import read_view
    from loopscope.controller.plan.explaining import explain  # late: help must stay quick
    from loopscope.controller.settings import Settings

    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"why needs a name: loopscope why {kind.lower()} NAME")
    state = context.obj.open_to_read()

    settings = Settings(**settings_of_file(context.obj.state_path))

    def look() -> Explanation:
        controlled, at = state.database.dialect.is_led(), now()
        with state.database.read() as connection:
            key = find_one(connection, kind, context.obj.namespace, name).key
            return explain(
                connection,
                state.artifacts,
                key,
                now=at,
                controlled=controlled,
                queue=lambda: read_view(connection, state.path, settings, at),
            )

    said = _show(look(), output)
    while watch:
        time.sleep(POLL_SECONDS)
        said = _show(look(), output, said)


def _show(found: Explanation, output: str | None, before: str | None = None) -> str:
    """Print an explanation, if it is another than before; return it as it was printed."""
    text = (
        json.dumps(explanation_document(found), indent=2, ensure_ascii=False)
        if output == "json"
        else printable("\n".join(_lines(found)))
    )
    if text != before:
        print(text if before is None or output == "json" else f"\n{text}", flush=True)
    return text


def _lines(found: Explanation) -> Iterator[str]:
    for number, link in enumerate(found.links):
        yield f"{'because ' if number else ''}{link.key}: {link.state}"
        for name, text in _details(link):
            yield f"  {name:<10} {text}"
    who = "" if found.who == "nobody" else f" ({found.who})"
    yield f"next{who}: {found.next}"


def _details(link: Link) -> Iterator[tuple[str, str]]:
    for change in link.changed:
        yield "changed", change
    if link.digest:
        yield "digest", link.digest[:DIGEST_CHARACTERS]
    for name, content in link.upstream.items():
        yield "rests on", f"{name} {content[:DIGEST_CHARACTERS]}"
    job = link.job
    if job is not None:
        tries = f", attempt {job.attempts + 1}" if job.attempts else ""
        yield "job", f"{job.id} {job.state}{tries}"
    for share in link.shares:
        waits = f": {share.reason}: {share.message}" if share.reason else ""
        yield "shared", f"by job {share.id} {share.state}{waits}"
    if link.condition is not None:
        c = link.condition
        yield "condition", f"{c.type}={c.status} {c.reason}: {c.message}"
