"""``version``: which Loopscope this is, and what its numbers are."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version as version_of
from typing import Annotated

import typer

from loopscope.context import CommandError

EXAMPLES = {
    "version": ("version -o json",),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("version")(version)


def version(
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
) -> None:
    """Print the version; with -o json also the revisions of specs, database and stages."""
    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    if output is None:
        print(f"loopscope {version_of('loopscope')}")
        return
    from loopscope.specs.actions import CODE_REVISIONS
    from loopscope.specs.keys import API_VERSION
    from loopscope.state.db.database import HEAD_REVISION  # late: SQLAlchemy, for one number

    document = {
        "version": version_of("loopscope"),
        "apiVersion": API_VERSION,
        "databaseRevision": HEAD_REVISION,
        "codeRevisions": dict(CODE_REVISIONS),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    print(json.dumps(document, indent=2))
