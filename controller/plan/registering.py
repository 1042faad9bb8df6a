"""Registering: an experiment's intention, as long as its outcome does not exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from loopscope.controller.plan.unchecked import input_name
from loopscope.reconcilers.references import InputReference, child_key, model_reference
from loopscope.reconcilers.registry import OWNED_BY_KIND
from loopscope.specs.actions import CODE_REVISIONS
from loopscope.specs.blinding import BLINDED
from loopscope.specs.canonical import digest
from loopscope.specs.keys import Key
from loopscope.specs.outcomes import OUTCOMES
from loopscope.specs.payloads.observed import ObservedDictionary, ObservedModel
from loopscope.specs.pipeline import NodeName, nodes_of
from loopscope.specs.registration import (
    NOTE_CHARACTERS_MAX,
    Hypothesis,
    Intention,
    RegisteredCode,
    Registration,
    hypothesis_of,
    in_force,
)
from loopscope.specs.spec_json import ExperimentJson, SteeringJson
from loopscope.specs.status import Condition, with_transition_times
from loopscope.state.db import events, jobs, objects
from loopscope.state.db.connection import Connection
from loopscope.state.failures import TerminalFailure
from loopscope.state.records import ObjectRecord
from loopscope.state.source_code import source_at_start
from loopscope.views.registration import plan_of, spec_digests

OUTCOME: NodeName = "steering"
"""The stage that holds the outcome of an experiment."""
EXPECTED = ("multi-coarse>0", "multi-fine>0")
"""What is expected where nothing else is said: what the word Supported means."""
_BEGUN = ("running", "succeeded", "failed")

Resolved = Callable[[InputReference], ObservedModel | ObservedDictionary | str]
"""Returns what a reference leads to, or why that is not known."""


def intention_of(
    connection: Connection,
    record: ObjectRecord,
    identities: Mapping[str, str],
    hypotheses: Sequence[str] = (),
    note: str = "",
) -> Intention:
    """Return what an experiment is about to find out.

    ``identities`` are those of its inputs. Raises TerminalFailure ``OutcomeExists``, and
    ValueError for a hypothesis or a note that cannot be.
    """
    spec = cast(ExperimentJson, record.spec)
    if len(note) > NOTE_CHARACTERS_MAX:
        raise ValueError(f"a note has at most {NOTE_CHARACTERS_MAX:,} characters")
    known = _known(connection, record)
    steering = cast(SteeringJson, OWNED_BY_KIND["Steering"](spec, OUTCOME))
    return {
        "experiment": f"{record.key.namespace}/{record.key.name}",
        "spec": spec_digests(spec),
        "hypotheses": _hypotheses(hypotheses, steering),
        "plan": plan_of(steering),
        "inputs": dict(identities),
        "code": _code(),
        "known": known,
        "note": note,
    }


def _hypotheses(words: Sequence[str], steering: SteeringJson) -> list[Hypothesis]:
    arms = [*steering["arms"], *(["systemPrompt"] if "systemPrompt" in steering else [])]
    return [hypothesis_of(word, arms) for word in words or EXPECTED]


def _known(connection: Connection, record: ObjectRecord) -> dict[str, str]:
    """Return the content of the stages that are done. Raises TerminalFailure ``OutcomeExists``."""
    known: dict[str, str] = {}
    for node in nodes_of(record.spec):
        own = objects.get(connection, child_key(record.key, node.name))
        made = own.status.artifact if own is not None else None
        if made is not None:
            known[node.name] = made.content_digest
    key = child_key(record.key, OUTCOME)
    begun = any(
        job.object == key and job.state in _BEGUN for job in jobs.listed(connection, ended=True)
    )
    if OUTCOME in known or begun:
        raise TerminalFailure(
            "OutcomeExists",
            f"{key} has {'been done' if OUTCOME in known else 'begun'}, so what would be "
            "registered is not what was expected before; register an experiment before it runs",
        )
    return known


def identities_of(record: ObjectRecord, resolved: Resolved) -> dict[str, str]:
    """Return the identities of model and dictionaries, which may take as long as hashing them.

    Raises TerminalFailure ``NothingToRegister`` (no steering) and ``InputNotKnown``.
    """
    spec = cast(ExperimentJson, record.spec)
    if "steering" not in spec:
        raise TerminalFailure(
            "NothingToRegister",
            f"{record.key} has no steering, so it has no outcome that could be expected",
        )
    references = {
        "model": model_reference(spec["model"], spec["prompts"]),
        **{
            side: InputReference("dictionary", cast(Any, spec["dictionaries"])[side])
            for side in ("coarse", "fine")
        },
    }
    identities = {}
    for name, reference in references.items():
        found = resolved(reference)
        if isinstance(found, str):
            raise TerminalFailure("InputNotKnown", f"{input_name(reference)}: {found}")
        identities[name] = found["ref"]["identity"]
    return identities


def opening_of(records: Sequence[Registration], experiment: str, note: str) -> Intention:
    """Return the record that names an experiment's arms before as much was scored as registered.

    Raises TerminalFailure ``NothingToOpen``, and ValueError for a note that cannot be.
    """
    if not 0 < len(note) <= NOTE_CHARACTERS_MAX:
        raise ValueError(f"--open takes a --note of at most {NOTE_CHARACTERS_MAX:,} characters")
    found = in_force([one for one in records if one["experiment"] == experiment])
    if found is None or found.opening is not None:
        why = "was opened already" if found is not None else "was not registered"
        raise TerminalFailure("NothingToOpen", f"{experiment} {why}, so its arms have their names")
    intended = found.intention
    return {
        "experiment": experiment,
        "spec": intended["spec"],
        "hypotheses": intended["hypotheses"],
        "plan": intended["plan"],
        "inputs": intended["inputs"],
        "code": _code(),
        "known": intended["known"],
        "note": note,
        "opened": intended["digest"],
    }


def look_again(connection: Connection, experiment: Key, now: float) -> None:
    """Let a steering that is blinded be looked at anew; any other stays as it is."""
    record = objects.get(connection, child_key(experiment, OUTCOME))
    if record is None or BLINDED not in record.status.summary:
        return
    message = "its arms were opened early"
    conditions = [
        Condition("Ready", "False", "Opened", message, record.generation),
        Condition("Reconciling", "True", "Opened", message, record.generation),
    ]
    status = replace(
        record.status,
        conditions=with_transition_times(conditions, record.status.conditions, now),
        summary={},
    )
    objects.update_status(connection, record, status, record.wanted_digest)
    events.record(connection, record.key, "Normal", "Opened", message, now=now)


def _code() -> RegisteredCode:
    try:
        own = version("loopscope")
    except PackageNotFoundError:
        own = "unknown"
    modules = source_at_start().modules
    return {
        "loopscope": own,
        "revisions": {
            **{str(stage): revision for stage, revision in CODE_REVISIONS.items()},
            **{f"outcome {name}": one.revision for name, one in OUTCOMES.items()},
        },
        "sources": digest({name: module.sha256 for name, module in modules.items()}),
    }
