"""The pictures in the documents, drawn from the code: ``python docs/generate_pictures.py``.

Each stands as Mermaid between ``<!-- picture of … -->`` and ``<!-- end -->``. The pipeline is that
of ``specs/pipeline.py``. The states of a job are tried: every function that writes a job is called
on a job in every state. The words for an object are those that the reconcilers' plans lead to. A
test compares the committed pages with what this script returns.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import cast, get_args

from loopscope.reconcilers.plan import Answered, Blocked, Desired, Kept, Observed, Snapshot, Wanted
from loopscope.reconcilers.stage import plan_stage
from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import ALONE, NODES, PIPELINE, SHARED
from loopscope.specs.registration import FIXED, InForce, RegisteredPlan, Registration
from loopscope.specs.status import ArtifactReference, Status
from loopscope.state.db import jobs
from loopscope.state.db.connection import Connection
from loopscope.state.folder import open_state
from loopscope.state.records import ArtifactRecord, JobHead, JobState, ObjectRecord
from loopscope.state.retry_policy import RetryPolicy

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "ARCHITECTURE.md", ROOT / "docs/status.md")
BLOCK = re.compile(r"<!-- picture of ([a-z ]+) -->\n.*?<!-- end -->", flags=re.DOTALL)
KEY = Key("Capture", "default", "france-capture")


def render(page: str) -> str:
    """Return the page with its pictures. Raises KeyError for one that nobody draws."""

    def block(found: re.Match[str]) -> str:
        name = found[1]
        lines = "\n".join(PICTURES[name]())
        return f"<!-- picture of {name} -->\n```mermaid\n{lines}\n```\n<!-- end -->"

    return BLOCK.sub(block, page)


def pipeline() -> Iterator[str]:
    """Draw the nodes, what each refers to by which field, and what it reads through that."""
    yield "flowchart LR"
    for node in PIPELINE:
        optional = "<br/><i>may be left out</i>" if node.optional else ""
        yield f'  {node.name}["<b>{node.name}</b><br/>{node.kind}{optional}"]'
    for node in PIPELINE:
        if node.loads is not None:
            yield f"  {node.name}_{node.loads}([{node.loads}]) --> {node.name}"
    for node in PIPELINE:
        for field, upstream in node.upstream.items():
            yield f"  {upstream} -- {field} --> {node.name}"
        for seen in node.sees:
            yield f"  {seen} -.-> {node.name}"
    for shared in SHARED:
        yield f'  {shared.stage}["<b>{shared.stage}</b><br/><i>shared</i>"]'
        for loaded in shared.loads:
            yield f"  {loaded}_{NODES[loaded].loads} --> {shared.stage}"
        for read in shared.reads:
            yield f"  {read} -.-> {shared.stage}"
        for waiting in shared.needed_by:
            yield f"  {shared.stage} --> {waiting}"
    for alone in ALONE:
        asked = "<br/><i>applied by itself</i>"
        yield f'  {alone.stage}["<b>{alone.stage}</b><br/>{alone.kind}{asked}"]'
        for field, upstream in alone.upstream.items():
            yield f"  {upstream} -- {field} --> {alone.stage}"


Operation = Callable[[Connection, JobHead], object]
ONCE, OFTEN = RetryPolicy(attempts_max=1, losses_max=1), RetryPolicy()


def _fail(policy: RetryPolicy, *, transient: bool) -> Operation:
    return lambda c, job: jobs.fail(
        c, job.id, job.token, "DiskFull", "", transient=transient, now=0.0, policy=policy
    )


WRITES: dict[str, tuple[str, Operation]] = {
    "claimed by a worker": ("claim", lambda c, job: jobs.claim(c, job.id, "w", 1.0, now=0.0)),
    "artifact published": ("succeed", lambda c, job: jobs.succeed(c, job.id, job.token, now=0.0)),
    "artifact found": ("adopt_artifact", lambda c, job: jobs.adopt_artifact(c, job.id, now=0.0)),
    "failed for good": ("fail", _fail(OFTEN, transient=False)),
    "failed, goes again": ("fail", _fail(OFTEN, transient=True)),
    "last attempt failed": ("fail", _fail(ONCE, transient=True)),
    "given back to wait": (
        "postpone",
        lambda c, job: jobs.postpone(c, job.id, job.token, "DiskFull", "", until=0.0),
    ),
    "stopped": ("release", lambda c, job: jobs.release(c, job.id, job.token)),
    "worker lost": ("lose", lambda c, job: jobs.lose(c, job, now=0.0, policy=OFTEN)),
    "lost too often": ("lose", lambda c, job: jobs.lose(c, job, now=0.0, policy=ONCE)),
    "cancelled": (
        "cancel",
        lambda c, job: jobs.cancel(c, job.id, "Superseded", "", now=0.0),
    ),
}
"""What happens to a job, and the function of ``state/db/jobs.py`` that writes it."""
BIRTHS = {"enqueue": "wanted", "retry": "retried: a new job"}
CHANGES_NO_STATE = ("heartbeat", "report_progress", "forgive_losses")


def jobs_states() -> Iterator[str]:
    """Draw which state follows which, as found by trying every write in every state."""
    yield "stateDiagram-v2"
    yield "  direction LR"
    for words in BIRTHS.values():
        yield f"  [*] --> pending: {words}"
    with tempfile.TemporaryDirectory() as folder:
        database = open_state(Path(folder)).database
        numbers = count()
        for before in get_args(JobState):
            leads: dict[str, list[str]] = {}
            for words, (_, write) in WRITES.items():
                with database.write() as connection:
                    job = _job_in(connection, before, next(numbers))
                    after = _state_after(connection, job, write)
                if after != before:
                    leads.setdefault(after, []).append(words)
            for after, words_of in leads.items():
                yield f"  {before} --> {after}: {'<br/>'.join(words_of)}"
        database.close()


def _job_in(connection: Connection, state: JobState, number: int) -> JobHead:
    """Return a new job that was brought into a state."""
    action = Action("mapping", {"number": number}, {})
    job_id, _ = jobs.enqueue(connection, action, KEY, 1, now=0.0)
    if state != "pending":
        claimed = jobs.claim(connection, job_id, "w", 1.0, now=0.0)
        ways: dict[JobState, Operation] = {
            "running": lambda c, job: None,
            "succeeded": WRITES["artifact published"][1],
            "failed": WRITES["failed for good"][1],
            "cancelled": WRITES["cancelled"][1],
        }
        ways[state](connection, claimed)
    return _head(connection, job_id)


def _state_after(connection: Connection, job: JobHead, write: Operation) -> JobState:
    try:
        write(connection, job)
    except jobs.Fenced:
        return job.state
    return _head(connection, job.id).state


def _head(connection: Connection, job_id: int) -> JobHead:
    job = jobs.head(connection, job_id)
    assert job is not None  # just added
    return job


ACTION = Action("capture", {}, {})
ARTIFACT = ArtifactRecord("capture", ACTION.digest, "content", {}, {}, 0.0)
WANTED = Wanted(ACTION, {})
PAUSED = {"paused_by": "all", "paused_stages": {"capture": "all"}}


def _job(state: JobState, reason: str | None = None) -> Observed:
    job = JobHead(1, "capture", ACTION.digest, state, KEY, 1, 0, 0, 0.0, 0.0, reason=reason)
    return Observed(job=replace(job, way=ACTION.way))


STEERING = Action("steering", {}, {"samplesPerPrompt": 1})
PILOT = ArtifactRecord("steering", STEERING.digest, "content", {}, {"n": 5}, 0.0)
PLAN: RegisteredPlan = {
    "openings": 20,
    "samples_per_opening": 1,
    "arms": [],
    "strengths": [],
    "strength_unit": "nextTokenKl",
    "min_difference": 0.15,
    "stopping": FIXED,
}
REGISTERED = InForce(cast("Registration", {"digest": "record", "plan": PLAN}), None)

SEEN: dict[str, tuple[Desired, Observed]] = {
    "input not known yet": (Blocked("Resolving", ""), Observed()),
    "waits for disk or restart": (WANTED, _job("pending", "DiskFull")),
    "job waits for a worker": (WANTED, _job("pending")),
    "work is paused": (WANTED, _job("pending")),
    "job failed, goes again": (WANTED, _job("pending", "HubUnreachable")),
    "job runs": (WANTED, _job("running")),
    "artifact is whole": (WANTED, Observed(artifact=ARTIFACT)),
    "artifact of older rules": (WANTED, Observed(kept=Kept(ARTIFACT, ""))),
    "no work needed": (Answered("GateNoGo", "", {}), Observed()),
    "artifact of fewer texts than registered": (
        Wanted(STEERING, {}),
        Observed(artifact=PILOT, registered=REGISTERED),
    ),
    "input refused or Stalled": (Blocked("InputRefused", "", True), Observed()),
    "job failed for good": (WANTED, _job("failed", "NotFinite")),
    "job cancelled by hand": (WANTED, _job("cancelled", "Cancelled")),
}
"""What a reconcile of a stage may see."""


def conditions() -> Iterator[str]:
    """Draw what a reconcile sees, the word in tables, and the conditions that come with it."""
    reference = ArtifactReference("capture", "older", "content")
    fresh = ObjectRecord(KEY, "u", 1, 1, {}, Status(), 0.0)
    leads = {"not looked at yet": ("", fresh.stage_word)}
    for words, (desired, observed) in SEEN.items():
        record = fresh
        if observed.kept is not None:  # it was Ready before the upgrade
            plan = plan_stage(Snapshot(fresh, 0.0), WANTED, Observed(artifact=ARTIFACT))
            record = replace(fresh, status=replace(plan.status, artifact=reference))
        paused = PAUSED if words == "work is paused" else {}
        plan = plan_stage(Snapshot(record, 0.0, **paused), desired, observed)  # type: ignore[arg-type]
        leads[words] = (_together(plan.status), replace(record, status=plan.status).stage_word)
    yield "flowchart LR"
    ways: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    for words, (group, word) in leads.items():
        ways.setdefault(word, []).append(words)
        if word not in groups.setdefault(group, []):
            groups[group].append(word)
    for word, seen in ways.items():
        yield f'  {word}_seen["{"<br/>".join(seen)}"] --> {word}'
    for number, (group, members) in enumerate(groups.items()):
        if not group:
            continue
        yield f'  subgraph group{number} ["{group}"]'
        yield from (f"    {word}([<b>{word}</b>])" for word in members)
        yield "  end"


def _together(status: Status) -> str:
    """Return those of the three leading conditions that stand there."""
    leading = [c for c in status.conditions if c.type in ("Ready", "Reconciling", "Stalled")]
    return ", ".join(f"{c.type}: {c.status}" for c in leading)


PICTURES: dict[str, Callable[[], Iterator[str]]] = {
    "the pipeline": pipeline,
    "a job": jobs_states,
    "the conditions": conditions,
}


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
