"""The subcommands, in packages by what they are about; beside these what they share.

A command reads words, calls what stands below, and prints. Its module has ``register(app)``,
and ``EXAMPLES``: by command, what may stand behind ``loopscope``, which its help prints at its end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib import import_module

import typer
from typer.models import CommandInfo, TyperInfo

GROUPS = {
    "Make it true": {
        "process.run": ["run"],
        "process.controller": ["controller"],
    },
    "What should exist": {
        "applying.plan": ["plan"],
        "applying.apply": ["apply", "diff"],
        "applying.register": ["register"],
        "applying.rollout": ["rollout"],
        "applying.editing": ["edit", "patch", "label", "annotate"],
        "applying.delete": ["delete"],
    },
    "What can be written": {
        "writing.init": ["init"],
        "writing.explain": ["explain", "schema"],
        "writing.api_resources": ["api-resources"],
        "writing.dictionaries": ["dictionaries"],
        "writing.tokens": ["tokens"],
        "writing.fetch": ["fetch"],
    },
    "What exists": {
        "objects.get": ["get"],
        "objects.describe": ["describe"],
        "objects.events": ["events"],
        "objects.why": ["why"],
        "objects.wait": ["wait"],
        "objects.logs": ["logs"],
    },
    "Jobs": {
        "jobs.queue": ["queue"],
        "jobs.pause": ["pause", "resume"],
        "jobs.attempts": ["retry", "cancel", "rerun"],
        "jobs.top": ["top"],
    },
    "What came out": {
        "results.report": ["report"],
        "results.export": ["export"],
        "results.verify": ["verify"],
        "results.compare": ["compare"],
        "results.replicate": ["replicate"],
        "results.ask": ["ask"],
        "results.rate": ["rate"],
        "results.labels": ["labels"],
    },
    "Other programs": {
        "process.serve": ["serve"],
    },
    "The state folder": {
        "state_folder.backup": ["backup", "restore", "snapshot"],
        "state_folder.migrate_state": ["migrate-state"],
        "state_folder.gc": ["gc"],
        "state_folder.fsck": ["fsck"],
        "state_folder.rebuild": ["rebuild"],
    },
    "This program": {
        "program.doctor": ["doctor"],
        "program.version": ["version"],
        "program.completion": ["completion"],
    },
}
"""The modules by what their commands are for, and the commands of each, as help lists them."""

MODULES = {module: names for group in GROUPS.values() for module, names in group.items()}
"""The commands of each module, in the order in which help lists them."""


def register(app: typer.Typer, words: Collection[str] = ()) -> None:
    """Add the subcommands that are among ``words``, or all when none is.

    What was not asked for is not imported: that would take most of the time of a short command.
    """
    asked = [name for name, commands in MODULES.items() if not set(commands).isdisjoint(words)]
    title_of = {name: title for title, group in GROUPS.items() for name in group}
    for name in asked or MODULES:
        known = {id(one) for one in _registered(app)}
        module = import_module(f"loopscope.commands.{name}")
        module.register(app)
        for one in _registered(app):
            if id(one) not in known:
                one.rich_help_panel = title_of[name]
                one.epilog = _epilogue(module.EXAMPLES[one.name])


def _epilogue(examples: Sequence[str]) -> str:
    """Return the end of a command's help, one line an example."""
    return "\n\n".join(["Examples:", *(f"loopscope {words}" for words in examples)])


def _registered(app: typer.Typer) -> list[CommandInfo | TyperInfo]:
    return [*app.registered_commands, *app.registered_groups]
