"""The part that all stages share: from a desired action and what exists to a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from loopscope.reconcilers.blinding import withheld
from loopscope.reconcilers.measured import measured
from loopscope.reconcilers.newest_job import edited_since, job_words, needs_a_human
from loopscope.reconcilers.plan import (
    Answered,
    Blocked,
    Desired,
    Failed,
    Kept,
    LookAgain,
    Observed,
    Plan,
    PlannedEvent,
    Snapshot,
    Wanted,
    next_up,
)
from loopscope.reconcilers.references import InputReference
from loopscope.specs.actions import Action
from loopscope.specs.canonical import digest
from loopscope.specs.keys import SOURCE_PROBLEM_ANNOTATION, Key
from loopscope.specs.status import (
    ArtifactReference,
    Condition,
    ConditionType,
    Status,
    Truth,
    with_transition_times,
)
from loopscope.state.records import (
    RULES_CHANGED,
    UNAVAILABLE,
    ArtifactRecord,
    InputRecord,
    JobHead,
    ObjectRecord,
)

if TYPE_CHECKING:
    from loopscope.specs.payloads.references import (
        DecompositionReference,
        NeededArtifact,
        UpstreamArtifact,
    )

LET_GO = "`loopscope plan -f` shows what would run again, `loopscope apply -f --confirm` lets it"
"""How work of older rules is made again."""


def plan_stage(snapshot: Snapshot, desired: Desired, observed: Observed) -> Plan:
    """Return what brings one stage object closer to its spec."""
    if observed.kept is not None:
        return _kept(snapshot, observed.kept)
    match desired:
        case Blocked():
            return _blocked(snapshot, desired)
        case Answered():
            return _answered(snapshot, desired)
        case Wanted():
            return withheld(_wanted(snapshot, desired, observed), desired, observed)
        case _:
            assert_never(desired)


def resolved_input(snapshot: Snapshot, reference: InputReference) -> InputRecord | Blocked:
    """Return what a model or dictionary reference resolved to, or why the stage must wait."""
    record = snapshot.inputs.get(reference.digest)
    if record is None:
        return Blocked("Resolving", f"finding out what the {reference.kind} is", keep_wanted=True)
    if record.facts is None and record.reason == UNAVAILABLE:
        return Blocked(UNAVAILABLE, record.message or "", keep_wanted=True)
    if record.facts is None:
        reason = "InputRefused" if record.terminal else "Resolving"
        message = str(record.message or "")
        if record.reason != reason:
            message = f"{record.reason}: {message}"
        return Blocked(reason, message, terminal=record.terminal, keep_wanted=not record.terminal)
    return record


def ready_reference(snapshot: Snapshot, key: Key, used: str | None) -> ObjectRecord | Blocked:
    """Return a referenced object that is Ready, or why the stage must wait.

    ``used`` is the upstream action digest that the stage's last action rested on.
    """
    record = snapshot.references.get(key)
    if record is None:
        return Blocked(
            "ReferenceNotFound", f"{key} does not exist; apply it or fix the name", terminal=True
        )
    if record.status.is_of_older_rules:
        current = record.status.condition("RulesCurrent")
        why = f" ({current.message})" if current else ""
        return Blocked(RULES_CHANGED, f"{key} rests on work of older rules{why}", terminal=True)
    if record.stalled:
        stalled = record.status.condition("Stalled")
        why = f": {stalled.reason}: {stalled.message}" if stalled else ""
        return Blocked("UpstreamStalled", f"{key} needs a human{why}", terminal=True)
    if not record.ready:
        keep = used is not None and record.wanted_digest == used
        return Blocked("InputsNotReady", waits_for(key), keep_wanted=keep)
    return record


def waits_for(key: Key) -> str:
    """Return what the status of an object says that waits for another one, and no more.

    What that one is doing changes often, and is told with it (``views.waiting``).
    """
    return f"waits for {key}"


def artifact_of(snapshot: Snapshot, record: ObjectRecord) -> ArtifactRecord | Blocked:
    """Return the artifact that a Ready upstream rests on."""
    reference = record.status.artifact
    artifact = snapshot.artifacts.get(reference.digest) if reference else None
    if artifact is None:
        return Blocked("InputsNotReady", f"waits for the artifact of {record.key}")
    return artifact


def last_used(snapshot: Snapshot, name: str) -> str | None:
    """Return the upstream digest under ``status.inputs.<name>``, if the stage got that far."""
    digest = snapshot.object.status.inputs.get(name, {}).get("digest")
    return str(digest) if digest else None


def reference_json(artifact: ArtifactRecord) -> UpstreamArtifact:
    """Return how a payload and a status refer to an upstream artifact."""
    return {"digest": artifact.digest, "contentDigest": artifact.content_digest}


def side_json(used: DecompositionReference) -> DecompositionReference:
    """Return a decomposition as a mapping read it, without the name of its object."""
    return {
        "digest": used["digest"],
        "contentDigest": used["contentDigest"],
        "dictionary": used["dictionary"],
    }


def needed_json(action: Action) -> NeededArtifact:
    """Return how a payload and a status refer to a shared artifact: by what it is made from."""
    return {
        "digest": action.digest,
        "contentDigest": None,
        "stage": action.stage,
        "codeRevision": action.code_revision,
    }


def condition(
    snapshot: Snapshot, type_: ConditionType, status: Truth, reason: str, message: str
) -> Condition:
    """Return a condition observed at the object's current generation."""
    return Condition(type_, status, reason, message, snapshot.object.generation)


def suspended(snapshot: Snapshot, stage: str | None = None) -> tuple[Condition, ...]:
    """Return the condition of an object whose work (or job of ``stage``) a pause holds back."""
    scope = snapshot.paused_by if stage is None else snapshot.paused_stages.get(stage)
    if scope is None:
        return ()
    words = pause_words(scope)
    return (condition(snapshot, "Suspended", "True", "Suspended", words),)


def pause_words(scope: str) -> str:
    """Return what a paused scope means, and how it ends."""
    what, _, name = scope.partition("/")
    if what == "all":
        return "everything is paused; loopscope resume --all"
    if what == "stage":
        return f"the stage {name} is paused; loopscope resume --stage {name}"
    namespace, _, name = name.partition("/")
    option = "" if namespace == "default" else f" -n {namespace}"
    return f"{what}/{name} is paused; loopscope{option} resume {what} {name}"


def timed(snapshot: Snapshot, *conditions: Condition) -> tuple[Condition, ...]:
    """Return conditions with their transition times, in the order in which they are shown.

    If the object's file is refused, a last one reports that: the spec is the last good one.
    """
    problem = snapshot.object.annotations.get(SOURCE_PROBLEM_ANNOTATION)
    if problem is not None:
        refused = condition(snapshot, "SourceValid", "False", "InvalidSpec", problem)
        conditions = (*conditions, refused)
    return with_transition_times(conditions, snapshot.object.status.conditions, snapshot.now)


def _blocked(snapshot: Snapshot, blocked: Blocked) -> Plan:
    old = snapshot.object
    stalled = _stalled(snapshot, blocked.reason, blocked.message) if blocked.terminal else None
    status = Status(
        observed_generation=old.generation,
        conditions=timed(
            snapshot,
            condition(snapshot, "Ready", "False", blocked.reason, blocked.message),
            stalled or condition(snapshot, "Reconciling", "True", blocked.reason, blocked.message),
            condition(snapshot, "InputsReady", "False", blocked.reason, blocked.message),
            *(() if stalled else suspended(snapshot)),
        ),
        summary={},
        inputs=old.status.inputs if blocked.keep_wanted else {},
    )
    unknown = blocked.reason in ("Resolving", UNAVAILABLE)
    return Plan(
        status=status,
        wanted_digest=old.wanted_digest if blocked.keep_wanted else None,
        events=_warn(old, stalled),
        result=Failed(blocked.reason, terminal=True)
        if blocked.terminal
        else (LookAgain(blocked.message) if unknown else Plan.result),
    )


def _answered(snapshot: Snapshot, answer: Answered) -> Plan:
    older = [str(key) for key, one in snapshot.references.items() if one.status.is_of_older_rules]
    words = f"rests on work of older rules: {', '.join(older)}; {LET_GO}"
    changed = [condition(snapshot, "RulesCurrent", "False", RULES_CHANGED, words)] if older else []
    status = Status(
        observed_generation=snapshot.object.generation,
        conditions=timed(
            snapshot,
            condition(snapshot, "Ready", "True", answer.reason, answer.message),
            _inputs_ready(snapshot),
            *changed,
        ),
        summary=answer.summary,
    )
    return Plan(status=status)


def _kept(snapshot: Snapshot, kept: Kept) -> Plan:
    """Keep the object on the work that it has, with a condition that names its rules.

    If its spec was edited meanwhile it is not Ready for the edit, and a human must act: confirm
    the edit, or take it back.
    """
    record = snapshot.object
    old = record.status
    spec = digest(record.spec)
    made_for = old.made_for or (spec if record.ready else None)
    message = f"{kept.words}; {LET_GO}"
    conditions = [c for c in old.conditions if c.type not in ("RulesCurrent", "SourceValid")]
    if not record.ready and spec == made_for:
        conditions = _done(snapshot, kept.artifact)
    elif not record.ready:
        message = f"its spec was edited, and {message}"
        conditions = [
            condition(snapshot, "Ready", "False", RULES_CHANGED, message),
            _stalled(snapshot, RULES_CHANGED, message),
        ]
    current = condition(snapshot, "RulesCurrent", "False", RULES_CHANGED, message)
    status = replace(
        old,
        observed_generation=record.generation,
        conditions=timed(snapshot, *conditions, current),
        made_for=made_for,
    )
    before = old.condition("RulesCurrent")
    is_known = before is not None and before.message == message
    event = PlannedEvent("Warning", RULES_CHANGED, message)
    return Plan(
        status=status,
        wanted_digest=record.wanted_digest,
        events=() if is_known else (event,),
    )


def _wanted(snapshot: Snapshot, wanted: Wanted, observed: Observed) -> Plan:
    if observed.artifact is not None and observed.damage is None:
        return _ready(snapshot, wanted, observed)
    wanted, observed = next_up(wanted, observed)
    job = observed.job
    if observed.artifact is not None and observed.damage is None:  # shared, and not in the index
        plan = _working(snapshot, wanted, job)
        again = LookAgain("a shared artifact is taken over", at_once=True)
        return replace(plan, enqueue=None, adopt=observed.artifact, result=again)
    if observed.damage is not None:
        event = PlannedEvent("Warning", "ArtifactDamaged", f"{observed.damage}; running it again")
        active = job is not None and job.state in ("pending", "running")
        plan = _working(snapshot, wanted, job if active else None)
        return Plan(
            status=plan.status,
            wanted_digest=plan.wanted_digest,
            enqueue=None if active else wanted.action,
            quarantine=observed.artifact,
            events=(event, *plan.events),
        )
    human = job is not None and needs_a_human(job, wanted.action)
    if job is not None and human and not edited_since(snapshot.object, job):
        return _failed(snapshot, wanted, job)
    return _working(snapshot, wanted, job)


def _ready(snapshot: Snapshot, wanted: Wanted, observed: Observed) -> Plan:
    artifact = observed.artifact
    assert artifact is not None  # the caller checked
    summary = dict(artifact.metrics)
    if observed.candidates is not None:
        summary["candidates"] = list(observed.candidates)
    status = Status(
        observed_generation=snapshot.object.generation,
        conditions=timed(snapshot, *_done(snapshot, artifact, wanted.transfer)),
        summary=summary,
        inputs=wanted.inputs,
        artifact=ArtifactReference(artifact.stage, artifact.digest, artifact.content_digest),
    )
    events: tuple[PlannedEvent, ...] = ()
    if not snapshot.object.ready:
        events = (PlannedEvent("Normal", "Ready", f"{wanted.action.stage} is done"),)
        fits = status.condition("DictionaryFits")
        if fits is not None and fits.status == "False":
            events = (*events, PlannedEvent("Warning", fits.reason, fits.message))
    return Plan(
        status=status,
        wanted_digest=wanted.action.digest,
        adopt=artifact if observed.unindexed else None,
        events=events,
    )


def _done(
    snapshot: Snapshot, artifact: ArtifactRecord, transfer: str | None = None
) -> list[Condition]:
    """Return the conditions of an object that rests on a whole artifact."""
    return [
        condition(snapshot, "Ready", "True", "Succeeded", f"{artifact.stage} is done"),
        _inputs_ready(snapshot),
        condition(snapshot, "ArtifactsVerified", "True", "ArtifactVerified", "artifact is intact"),
        *(condition(snapshot, *one) for one in measured(artifact.metrics, transfer)),
    ]


def _working(snapshot: Snapshot, wanted: Wanted, job: JobHead | None) -> Plan:
    """The job is under way, or is to be added because there is none that could succeed."""
    active = job if job is not None and job.state in ("pending", "running") else None
    stage = wanted.action.stage
    reason, message = job_words(stage, active)
    held = () if active is not None and active.state == "running" else suspended(snapshot, stage)
    if held:
        reason, message = held[0].reason, held[0].message
    status = Status(
        observed_generation=snapshot.object.generation,
        conditions=timed(
            snapshot,
            condition(snapshot, "Ready", "False", reason, message),
            condition(snapshot, "Reconciling", "True", reason, message),
            _inputs_ready(snapshot),
            *held,
        ),
        inputs=wanted.inputs,
    )
    return Plan(
        status=status,
        wanted_digest=wanted.action.digest,
        enqueue=None if active else wanted.action,
    )


def _failed(snapshot: Snapshot, wanted: Wanted, job: JobHead) -> Plan:
    reason, message = job.reason or "JobFailed", job.message or "the job failed without a message"
    stalled = _stalled(snapshot, reason, message)
    status = Status(
        observed_generation=snapshot.object.generation,
        conditions=timed(
            snapshot,
            condition(snapshot, "Ready", "False", reason, message),
            stalled,
            _inputs_ready(snapshot),
        ),
        inputs=wanted.inputs,
    )
    return Plan(
        status=status,
        wanted_digest=wanted.action.digest,
        events=_warn(snapshot.object, stalled),
        result=Failed(reason, terminal=True),
    )


def _stalled(snapshot: Snapshot, reason: str, message: str) -> Condition:
    return condition(snapshot, "Stalled", "True", reason, message)


def _inputs_ready(snapshot: Snapshot) -> Condition:
    return condition(snapshot, "InputsReady", "True", "InputsResolved", "all inputs are known")


def _warn(record: ObjectRecord, stalled: Condition | None) -> tuple[PlannedEvent, ...]:
    if stalled is None:
        return ()
    before = record.status.condition("Stalled")
    if before is not None and (before.reason, before.message) == (stalled.reason, stalled.message):
        return ()
    return (PlannedEvent("Warning", stalled.reason, stalled.message),)
