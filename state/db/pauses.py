"""Pauses: they hold back starts; what runs goes on."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, select

from loopscope.specs.keys import Key
from loopscope.state.db import tables
from loopscope.state.db.dialect.statements import insert_missing

EVERYTHING = "all"
_BY_SCOPE = select(tables.pauses).order_by(tables.pauses.c.scope)


def scope_of(key: Key) -> str:
    """Return the scope of one object and what it owns."""
    return scope_of_name(*key)


def scope_of_name(kind: str, namespace: str, name: str) -> str:
    """Return the scope of an object, which may have been deleted."""
    return f"{kind.lower()}/{namespace}/{name}"


def scope_of_stage(stage: str) -> str:
    """Return the scope of all jobs of a stage."""
    return f"stage/{stage}"


def in_words(scope: str) -> str:
    """Return a scope as people name it: an object without the namespace ``default``."""
    return str(Key(*scope.split("/"))) if scope.count("/") == 2 else scope


def pause(connection: Connection, scope: str, *, now: float) -> bool:
    """Pause a scope; return whether it was not paused before."""
    return insert_missing(connection, tables.pauses, {"scope": scope, "created_at": now})


def resume(connection: Connection, scope: str | None = None) -> list[str]:
    """End the pause of a scope, or with None every pause; return the scopes that were paused."""
    ended = delete(tables.pauses).returning(tables.pauses.c.scope)
    if scope is not None:
        ended = ended.where(tables.pauses.c.scope == scope)
    return sorted(connection.execute(ended).scalars())


def listed(connection: Connection) -> dict[str, float]:
    """Return the paused scopes and since when (Unix seconds)."""
    found = connection.execute(_BY_SCOPE)
    return {row.scope: float(row.created_at) for row in found}


def holding(
    scopes: Collection[str], key: Key, owner: Key | None = None, stage: str | None = None
) -> str | None:
    """Return the scope that holds back an object's work, the widest first, or None."""
    candidates = [EVERYTHING]
    candidates += [scope_of_stage(stage)] if stage is not None else []
    candidates += [scope_of(owner)] if owner is not None else []
    candidates.append(scope_of(key))
    return next((scope for scope in candidates if scope in scopes), None)
