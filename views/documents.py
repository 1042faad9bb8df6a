"""Objects and jobs as documents: what ``get -o yaml`` and ``queue -o json`` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loopscope.specs.keys import API_VERSION, SOURCE_ANNOTATION, SOURCE_PROBLEM_ANNOTATION
from loopscope.state.records import JobHead, ObjectRecord, Progress
from loopscope.views.numbers import iso

_MACHINE = (SOURCE_ANNOTATION, SOURCE_PROBLEM_ANNOTATION)
"""Annotations that say something about this machine, not about the object."""


def object_document(record: ObjectRecord) -> dict[str, Any]:
    """Return an object as people know it: apiVersion, kind, metadata, spec, status."""
    return {
        "apiVersion": API_VERSION,
        "kind": record.key.kind,
        "metadata": _metadata(record),
        "spec": record.spec,
        "status": _status(record),
    }


def list_document(records: Sequence[ObjectRecord]) -> dict[str, Any]:
    """Return several objects as one document of kind ``List``."""
    return {
        "apiVersion": API_VERSION,
        "kind": "List",
        "items": [object_document(record) for record in records],
    }


def applicable_document(record: ObjectRecord) -> dict[str, Any]:
    """Return the object as it could be applied again: no status, prompt texts in place.

    ``file`` and its format are left out beside ``texts``: the texts are what was run. Where the
    YAML lay on somebody's machine is left out, too.
    """
    metadata: dict[str, Any] = {"name": record.key.name, "namespace": record.key.namespace}
    for name, value in (("labels", record.labels), ("annotations", record.annotations)):
        own = {key: text for key, text in value.items() if key not in _MACHINE}
        if own:
            metadata[name] = own
    return {
        "apiVersion": API_VERSION,
        "kind": record.key.kind,
        "metadata": metadata,
        "spec": _without_files(record.spec),
    }


def job_document(job: JobHead, progress: Progress | None = None) -> dict[str, Any]:
    """Return a job with ISO times in UTC; ``progress`` is null unless it runs and reports."""
    return {
        "id": job.id,
        "stage": job.stage,
        "state": job.state,
        "digest": job.digest,
        "object": str(job.object),
        "attempts": job.attempts,
        "losses": job.losses,
        "createdAt": iso(job.created_at, "milliseconds"),
        "startedAt": iso(job.started_at, "milliseconds"),
        "finishedAt": iso(job.finished_at, "milliseconds"),
        "notBefore": iso(job.not_before, "milliseconds"),
        "worker": job.worker,
        "reason": job.reason,
        "message": job.message,
        "progress": _progress(progress) if progress else None,
    }


def remaining_seconds(progress: Progress) -> float | None:
    """Return the time left in the phase at its mean speed so far; None before the first unit."""
    if progress.done <= 0 or progress.total <= 0:
        return None
    spent = max(0.0, progress.updated_at - progress.phase_started_at)
    return spent * max(0, progress.total - progress.done) / progress.done


def speed(progress: Progress) -> float | None:
    """Return the units done per second in the phase so far; None before the first."""
    spent = progress.updated_at - progress.phase_started_at
    return progress.done / spent if progress.done > 0 and spent > 0 else None


def token_speed(progress: Progress) -> float | None:
    """Return the tokens done per second in the phase so far; None where nobody counts them."""
    spent = progress.updated_at - progress.phase_started_at
    return progress.tokens / spent if progress.tokens and spent > 0 else None


def _progress(progress: Progress) -> dict[str, Any]:
    left = remaining_seconds(progress)
    return {
        "phase": progress.phase,
        "done": progress.done,
        "total": progress.total,
        "unit": progress.unit,
        "tokensPerSecond": None if (rate := token_speed(progress)) is None else round(rate, 1),
        "etaSeconds": None if left is None else round(left, 1),
        "updatedAt": iso(progress.updated_at, "milliseconds"),
    }


def _metadata(record: ObjectRecord) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": record.key.name,
        "namespace": record.key.namespace,
        "uid": record.uid,
        "labels": dict(record.labels),
        "annotations": dict(record.annotations),
        "generation": record.generation,
        "resourceVersion": record.resource_version,
        "creationTimestamp": iso(record.creation_timestamp),
    }
    if record.deletion_timestamp is not None:
        metadata["deletionTimestamp"] = iso(record.deletion_timestamp)
    if record.finalizers:
        metadata["finalizers"] = list(record.finalizers)
    if record.owner is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": API_VERSION,
                "kind": record.owner.kind,
                "name": record.owner.name,
                "uid": record.owner_uid,
                "controller": True,
            }
        ]
    return metadata


def _status(record: ObjectRecord) -> dict[str, Any]:
    status = record.status.to_json()
    for condition in status["conditions"]:
        condition["lastTransitionTime"] = iso(condition["lastTransitionTime"])
    return status


def _without_files(value: Any) -> Any:
    if isinstance(value, dict):
        dropped = {"file", "format"} if "texts" in value else set()
        return {name: _without_files(v) for name, v in value.items() if name not in dropped}
    if isinstance(value, list):
        return [_without_files(item) for item in value]
    return value
