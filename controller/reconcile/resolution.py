"""Resolution of references beside the loop; results come back as observed inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, field, replace
from typing import cast

import structlog

from loopscope.controller.clock import Clock
from loopscope.inputs.chat_templates import chat_template_of
from loopscope.inputs.dictionaries import DictionaryFacts, describe_dictionary
from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.fetched import fetched
from loopscope.inputs.hub import Hub
from loopscope.inputs.models import ModelFacts, describe_model
from loopscope.reconcilers.plan import Blocked, Desired
from loopscope.reconcilers.references import InputReference, input_references
from loopscope.specs.chat_words import CHAT_TEMPLATE
from loopscope.specs.payloads.observed import ObservedDictionary, ObservedModel
from loopscope.specs.spec_json import DictionaryJson, ModelJson
from loopscope.state.db import inputs
from loopscope.state.db.connection import Connection
from loopscope.state.records import UNAVAILABLE, ObjectRecord

log = structlog.get_logger("resolution")


@dataclass(frozen=True)
class Resolution:
    """What came of looking at a reference: ``facts``, or why there are none."""

    reference: InputReference
    facts: ObservedModel | ObservedDictionary | None = None
    reason: str | None = None
    message: str | None = None
    terminal: bool = False

    def record(self, connection: Connection, now: float) -> bool:
        """Write what was found as an observed input; return whether it changed."""
        return inputs.record(
            connection,
            self.reference.digest,
            self.reference.kind,
            self.reference.reference,
            now=now,
            facts=self.facts,
            reason=self.reason,
            message=self.message,
            terminal=self.terminal,
        )


def is_local(reference: InputReference) -> bool:
    """Whether looking again needs no network; hub names stay pinned to their first commit."""
    if reference.kind == "dictionary":
        return "path" in reference.reference
    source = cast(ModelJson, reference.reference).get("source", {})
    return any(name in source for name in ("package", "gguf", "folder"))


def _described(reference: InputReference) -> ModelFacts | DictionaryFacts:
    if reference.kind == "model":
        facts = describe_model(cast(ModelJson, reference.reference))
        if CHAT_TEMPLATE in reference.reference:
            return replace(facts, chat_template=chat_template_of(facts.ref, Hub()))
        return facts
    return describe_dictionary(cast(DictionaryJson, reference.reference))


def resolve(reference: InputReference) -> Resolution:
    """Look at a model or dictionary; never raises for what a user or a network can cause."""
    try:
        # as it will come back from the store, so that an unchanged answer compares equal
        facts = json.loads(json.dumps(asdict(_described(reference))))
        if facts.get(_TEMPLATE, "") is None:
            del facts[_TEMPLATE]  # not asked for
    except InputRefused as refused:
        message = f"{refused.field}: {refused.message}" if refused.field else refused.message
        return Resolution(reference, None, "InputRefused", message, terminal=True)
    except ResolutionPending as pending:
        if pending.reason in _CUT_OFF and (known := fetched(reference.digest)) is not None:
            return Resolution(reference, cast(ObservedModel | ObservedDictionary, known))
        return Resolution(reference, None, pending.reason, pending.message)
    except OSError as error:
        return Resolution(reference, None, "InputUnreadable", str(error))
    except Exception as error:  # an odd file must not end the loop
        log.error("resolution failed", reference=reference.reference, exc_info=error)
        return Resolution(reference, None, "UnexpectedError", f"{type(error).__name__}: {error}")
    return Resolution(reference, facts)


_TEMPLATE = "chat_template"
_CUT_OFF = ("HubOffline", "HubUnreachable")
"""Then what ``loopscope fetch`` found ahead of time holds. A hub that is busy answers soon."""
UNRESOLVED = ("Resolving", "InputRefused", UNAVAILABLE)
"""Looked at again now and then: a hub comes back, a gate is opened, a file is put right."""
TRIES_MAX = 4
"""After this many tries without an answer an input counts as unavailable; the tries go on."""
_OUTAGES = ("HubUnreachable", "HubBusy", "HubOffline", "InputUnreadable", "UnexpectedError")
"""Not ``InputChanging``: a writer that takes its time is at work."""
_LASTS = ("HubOffline",)
"""Asking again in the same process cannot help."""


@dataclass
class Resolver:
    """Runs resolutions in ``executor``, one at a time per reference; counts failed tries."""

    executor: Executor
    wake: Callable[[], None]
    resolve: Callable[[InputReference], Resolution] = resolve
    _in_vain: dict[str, int] = field(default_factory=dict)
    _under_way: dict[str, Future[Resolution]] = field(default_factory=dict)

    def request(self, reference: InputReference) -> None:
        """Start looking, unless that is under way already."""
        if reference.digest not in self._under_way:
            future = self.executor.submit(self.resolve, reference)
            self._under_way[reference.digest] = future
            future.add_done_callback(lambda _: self.wake())

    def finished(self) -> list[Resolution]:
        """Return the resolutions that ended since the last call."""
        ended = [digest for digest, future in self._under_way.items() if future.done()]
        return [self._counted(self._under_way.pop(digest).result()) for digest in ended]

    def _counted(self, found: Resolution) -> Resolution:
        """Return the resolution; after many failed tries, as ``UNAVAILABLE``."""
        digest = found.reference.digest
        if found.reason not in _OUTAGES:
            self._in_vain.pop(digest, None)
            return found
        tries = self._in_vain[digest] = self._in_vain.get(digest, 0) + 1
        if tries < TRIES_MAX and found.reason not in _LASTS:
            return found
        message = f"{found.reason}: {found.message}"
        if found.reason not in _LASTS:
            message += f"; asked {TRIES_MAX} times in vain, and now and then again"
        return replace(found, reason=UNAVAILABLE, message=message)

    @property
    def busy(self) -> bool:
        """Whether something is being looked at."""
        return bool(self._under_way)


@dataclass
class LooksAgain:
    """Looks again at inputs that objects wait for, at each of them once in ``every_seconds``."""

    resolver: Resolver
    clock: Clock
    every_seconds: float
    _looked_at: dict[str, float] = field(default_factory=dict)

    def if_blocked(self, record: ObjectRecord, desired: Desired | None) -> None:
        """Request what an object rests on if it is blocked because that is not resolved."""
        if not isinstance(desired, Blocked) or desired.reason not in UNRESOLVED:
            return
        now = self.clock.elapsed()
        for reference in input_references(record):
            before = self._looked_at.get(reference.digest)
            if before is None or now >= before + self.every_seconds:
                self._looked_at[reference.digest] = now
                self.resolver.request(reference)
