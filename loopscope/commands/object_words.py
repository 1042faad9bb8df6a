"""Completions of KIND NAME in a shell: the kinds, and the names of the objects that exist."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from loopscope.context import KIND_BY_WORD, STATE_FOLDER, CommandError, kind_of
from loopscope.state.db import objects
from loopscope.state.folder import has_database, server_of
from loopscope.state.read_only import open_to_read

NAMES_MAX = 500
"""More names than this help nobody at a prompt."""


def complete_object(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """Return kinds for the first word, names for the next ones, both for ``kind/na``."""
    before: Sequence[str] = ctx.params.get("words") or ()
    if "/" in incomplete:
        word, _, start = incomplete.partition("/")
        return [f"{word}/{name}" for name in _names(ctx, word, start)]
    if not before:
        return sorted(word for word in KIND_BY_WORD if word.startswith(incomplete))
    return _names(ctx, before[0].partition("/")[0], incomplete)


def complete_experiment(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """Return the names of experiments; what is no experiment may be a file, for the shell."""
    return _names(ctx, "experiment", incomplete)


def _names(ctx: typer.Context, word: str, start: str) -> list[str]:
    """Return names, sorted; none where there is nothing to read, whatever keeps it from that."""
    with contextlib.suppress(Exception):
        return _read_names(_given(ctx), word, start)
    return []


def _read_names(given: dict[str, Any], word: str, start: str) -> list[str]:
    state = _folder_of(given["state"])
    try:
        kind = kind_of(word)
    except CommandError:
        return []
    if not has_database(state):
        return []
    with open_to_read(state).database.read() as connection:
        records = objects.listed(connection, kind, given["namespace"])
    return [r.key.name for r in records if r.key.name.startswith(start)][:NAMES_MAX]


def _folder_of(state: str) -> Path:
    """Return the folder that a state names; of a URL that none keeps, one that is not there."""
    kept = Path(STATE_FOLDER)
    return kept if "://" in state and server_of(kept) == state else Path(state)


def _given(ctx: typer.Context) -> dict[str, Any]:
    """Return state folder and namespace, whether they stand before or after the command."""
    before = ctx.parent.params if ctx.parent is not None else {}
    return {
        name: ctx.params.get(f"common_{name}") or before.get(name)
        for name in ("state", "namespace")
    }
