"""Explanation of an object's state: one chain from spec to condition, and what happens next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from loopscope.reconcilers.references import input_references
from loopscope.reconcilers.stage import LET_GO
from loopscope.specs.keys import Key
from loopscope.specs.status import Condition
from loopscope.state.db import inputs, jobs, objects, preemptions
from loopscope.state.db.connection import Connection
from loopscope.state.records import (
    CODE_CHANGED,
    PREEMPTED,
    UNPLACEABLE,
    WAITS_FOR_SPACE,
    JobHead,
    Progress,
)
from loopscope.views.queue import Waiting

HELD_BACK = ("FreeSpace", "FairShare", "Quota", "Memory", "Kind", "RateLimit")
"""Why a job waits, also while a worker is free."""
Who = Literal["nobody", "worker", "controller", "time", "you"]
"""Who must do what happens next."""
LinkState = Literal[
    "ready",
    "no work",
    "running",
    "queued",
    "stalled",
    "of older rules",
    "resolving",
    "not seen",
    "waits",
    "to do",
]


@dataclass(frozen=True)
class Link:
    """One object on the chain, from its spec to its condition."""

    key: Key
    state: LinkState
    condition: Condition | None
    changed: tuple[str, ...] = ()
    """What differs from the work before; empty when there was none."""
    digest: str | None = None
    upstream: Mapping[str, str] = field(default_factory=dict)
    """Name of an input to the content that it rests on."""
    job: JobHead | None = None
    progress: Progress | None = None
    shares: tuple[JobHead, ...] = ()
    """Jobs that make shards of its work beside it."""


@dataclass(frozen=True)
class Explanation:
    """The chain, outermost object first, and what happens next."""

    links: tuple[Link, ...]
    next: str
    who: Who


def explanation(
    connection: Connection,
    links: tuple[Link, ...],
    *,
    now: float,
    controlled: bool,
    waiting: Waiting | None = None,
) -> Explanation:
    """Return the chain with what must happen next about its last link, and who must do it.

    ``controlled``: whether a controller works there; ``waiting``: why the scheduler lets the last
    link's job wait, if that is known.
    """
    text, who = _next_step(connection, links[-1], now, waiting)
    if not controlled and who in ("worker", "controller", "time"):
        text = f"no controller works here: start `loopscope run` or `loopscope controller`; {text}"
        who = "you"
    return Explanation(links, text, who)


def _next_step(
    connection: Connection, link: Link, now: float, waiting: Waiting | None
) -> tuple[str, Who]:
    job, condition = link.job, link.condition
    match link.state:
        case "ready" | "no work":
            return "nothing: it is as its spec says", "nobody"
        case "running" if job is not None:
            return _running(connection, job, link.progress), "worker"
        case "queued" if job is not None:
            return _pending(connection, job, now, waiting)
        case "stalled":
            return _advice(link), "you"
        case "of older rules":
            return f"nothing runs before that is confirmed: {LET_GO}", "you"
        case "resolving":
            return _resolving(connection, link.key), "controller"
        case "not seen":
            return "the controller looks at the newest spec", "controller"
        case "waits" if condition is not None:
            return f"the controller looks again: {condition.message}", "controller"
        case _:
            return "the controller queues its job", "controller"


def _running(connection: Connection, job: JobHead, progress: Progress | None) -> str:
    asked = preemptions.listed(connection).get(job.id)
    if asked is None:
        return f"the worker finishes job {job.id}{_progress(progress)}"
    return (
        f"the worker of job {job.id}{_progress(progress)} makes room after the shard under way, "
        f"or ends, if it has no other: {asked.words}"
    )


def _pending(
    connection: Connection, job: JobHead, now: float, waiting: Waiting | None
) -> tuple[str, Who]:
    if job.reason in WAITS_FOR_SPACE:
        return f"free some disk space: {job.reason}: {job.message}", "you"
    if job.reason == UNPLACEABLE:
        return f"add a node that has it, or ask for less: {job.message}", "you"
    if job.reason == CODE_CHANGED:
        return f"restart the controller: {job.message}", "you"
    if job.not_before > now:
        wait = job.not_before - now
        return (
            f"job {job.id} is tried again in {wait:.0f} s after {job.reason}: {job.message}",
            "time",
        )
    if waiting is not None and waiting.reason == "Suspended":
        return f"`loopscope resume` lets job {job.id} start: {waiting.message}", "you"
    if waiting is not None and waiting.reason in HELD_BACK:
        return f"job {job.id} waits: {waiting.reason}: {waiting.message}", "controller"
    others = [j for j in jobs.running(connection) if j.id != job.id]
    makers = preemptions.makers_of_room(connection, job.id)
    asked = [other for other in others if other.id in makers]
    busy = f"; job {others[0].id} ({others[0].stage}) runs before it" if others else ""
    if asked:
        busy = f"; job {asked[0].id} ({asked[0].stage}) was asked to make room for it"
    why = f"; it {job.message}" if job.reason == PREEMPTED else ""
    return f"the controller hands job {job.id} to a free worker{busy}{why}", "controller"


def _resolving(connection: Connection, key: Key) -> str:
    record = objects.get(connection, key)
    for reference in input_references(record) if record is not None else []:
        known = inputs.get(connection, reference.digest)
        if known is None or known.facts is None:
            why = f": {known.reason}: {known.message}" if known is not None else ""
            return f"the controller finds out what the {reference.kind} is{why}"
    return "the controller looks at its inputs"


def _advice(link: Link) -> str:
    why = f"{link.condition.reason}: {link.condition.message}" if link.condition else "it stalled"
    words = f"{link.key.kind.lower()} {link.key.name}"
    if link.job is not None and link.job.state == "failed":
        return f"remove the cause, then edit the spec or `loopscope retry {words}`; {why}"
    return f"repair what the condition names; {why}"


def _progress(progress: Progress | None) -> str:
    if progress is None:
        return ""
    return f": {progress.phase} {progress.done}/{progress.total} {progress.unit}"
