"""The subcommands, one module per group."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module

import typer

MODULES = {
    "run": ["run"],
    "plan": ["plan"],
    "apply": ["apply", "diff"],
    "explain": ["explain", "schema"],
    "dictionaries": ["dictionaries"],
    "tokens": ["tokens"],
    "get": ["get", "describe", "events"],
    "why": ["why"],
    "wait": ["wait"],
    "queue": ["queue"],
    "pause": ["pause", "resume"],
    "jobs": ["retry", "cancel", "rerun"],
    "logs": ["logs"],
    "controller": ["controller"],
    "report": ["report", "export"],
    "delete": ["delete"],
    "gc": ["gc"],
    "fsck": ["fsck"],
    "rebuild": ["rebuild"],
}
"""The commands of each module, in the order in which help lists them."""


def register(app: typer.Typer, words: Collection[str] = ()) -> None:
    """Add the subcommands that are among ``words``, or all when none is.

    What was not asked for is not imported: that would take most of the time of a short command.
    """
    asked = [name for name, commands in MODULES.items() if not set(commands).isdisjoint(words)]
    for name in asked or MODULES:
        import_module(f"loopscope.commands.{name}").register(app)
