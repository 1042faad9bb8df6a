"""Reruns on request: artifacts are set aside, and the loop makes them again."""

from __future__ import annotations

from dataclasses import dataclass

from loopscope.reconcilers.references import child_key
from loopscope.specs.keys import PROTECT_ANNOTATION, Key
from loopscope.specs.pipeline import NODE_NAMES, made_again_with
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.db import events, jobs, objects
from loopscope.state.db.connection import Connection
from loopscope.state.failures import TerminalFailure
from loopscope.state.records import RULES_CHANGED, ObjectRecord

WHY = "it is made again by request (loopscope rerun)"


@dataclass(frozen=True)
class Rerun:
    """What became of one stage, and which other objects rest on its artifact."""

    key: Key
    what: str
    shared_with: list[Key]


def rerun_stages(
    connection: Connection,
    artifacts: ArtifactStore,
    experiment: ObjectRecord,
    start: str,
    *,
    now: float,
) -> list[Rerun]:
    """Set aside the artifacts of a stage and of those after it; queue failed jobs again.

    A crash leaves folders that are set aside but not forgotten, or nothing: the controller then
    finds them missing and makes them again, which is what was asked for. Raises TerminalFailure
    before anything is changed.
    """
    _refuse_older_rules(connection, experiment, start)
    found = [
        (record, record.wanted_digest)
        for stage in made_again_with(start)
        if (record := objects.get(connection, child_key(experiment.key, stage))) is not None
        and record.wanted_digest is not None
    ]
    for _, digest in found:
        _refuse_protected(connection, digest)
    done = []
    for record, digest in found:
        what = _rerun(connection, artifacts, record, digest, now)
        wanting = objects.wanting(connection, digest)
        done.append(Rerun(record.key, what, [key for key in wanting if key != record.key]))
    return done


def _refuse_older_rules(connection: Connection, experiment: ObjectRecord, start: str) -> None:
    """Raise TerminalFailure where what is made again would need work of older rules."""
    for stage in sorted(set(NODE_NAMES).difference(made_again_with(start))):
        record = objects.get(connection, child_key(experiment.key, stage))
        if record is not None and record.status.is_of_older_rules:
            raise TerminalFailure(
                RULES_CHANGED,
                f"{record.key} rests on work of older rules, of which nothing new is made; apply "
                "with --confirm, and all of it is made again",
            )


def _refuse_protected(connection: Connection, digest: str) -> None:
    """Raise Protected where an artifact that is there is one that must not be lost."""
    if artifact_index.get(connection, digest) is None:
        return
    for key in objects.wanting(connection, digest):
        holder: Key | None = key
        while holder is not None and (record := objects.get(connection, holder)) is not None:
            if record.is_protected:
                raise objects.Protected(
                    "Protected",
                    f'{holder} carries {PROTECT_ANNOTATION}: "true", and the artifact of {key} '
                    "would be set aside; apply its file without the annotation first",
                )
            holder = record.owner


def _rerun(
    connection: Connection, artifacts: ArtifactStore, record: ObjectRecord, digest: str, now: float
) -> str:
    artifact = artifact_index.get(connection, digest)
    job = jobs.find_latest(connection, digest)
    if artifact is not None:
        artifact_index.forget(connection, digest)
        artifacts.quarantine(artifact.stage, digest)
        objects.take_ready_away(connection, digest, WHY, reason="Rerun", now=now)
        events.record(connection, record.key, "Normal", "Rerun", WHY, now=now)
        return "is made again; the old artifact is in artifacts/.quarantine"
    if job is not None and job.state in ("failed", "cancelled"):
        return f"job {job.id} is retried as job {jobs.retry(connection, job.id, now=now)}"
    return "is not done yet"
