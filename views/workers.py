"""The workers of the last controller: what each holds, what it does, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass

from loopscope.state.db import jobs, leader, objects
from loopscope.state.db.connection import Connection
from loopscope.state.processes import process_use
from loopscope.state.records import JobHead, ObjectRecord, Progress
from loopscope.state.workers import worker_lives
from loopscope.views.jobs import token_speed


@dataclass(frozen=True)
class WorkerView:
    """One worker. ``job`` is None while it idles; what is not known is None.

    ``model`` is the name that a spec gives to the model which it holds, else the begin of the
    model's identity. ``memory_bytes`` is resident memory, without that of a GPU;
    ``processor_seconds`` what it took since it started.
    """

    name: str
    device: str
    model: str | None
    job: JobHead | None
    progress: Progress | None
    memory_bytes: int | None
    processor_seconds: float | None

    @property
    def tokens_per_second(self) -> float | None:
        """The speed in the phase so far, where tokens are counted."""
        return token_speed(self.progress) if self.progress is not None else None


def workers_of(connection: Connection) -> list[WorkerView]:
    """Return the workers that live, or of which nothing can be known here, by name."""
    found = [
        one for one in leader.workers(connection).values() if worker_lives(one.name) is not False
    ]
    if not found:
        return []
    running = {job.worker: job for job in jobs.running(connection)}
    progress = jobs.progress_of(connection)
    names = _model_names(objects.listed(connection, "Capture"))
    views = []
    for one in found:
        job = running.get(one.name)
        use = process_use(one.name)
        views.append(
            WorkerView(
                name=one.name,
                device=one.device,
                model=names.get(one.model, one.model[:12]) if one.model is not None else None,
                job=job,
                progress=progress.get(job.id) if job is not None else None,
                memory_bytes=use.memory_bytes if use is not None else None,
                processor_seconds=use.processor_seconds if use is not None else None,
            )
        )
    return views


def _model_names(captures: list[ObjectRecord]) -> dict[str, str]:
    """Return the names that specs give to models, by identity."""
    names = {}
    for capture in captures:
        model = capture.status.inputs.get("model")
        reference = model.get("ref") if isinstance(model, dict) else None
        if isinstance(reference, dict) and reference.get("identity"):
            names[str(reference["identity"])] = str(reference.get("name"))
    return names
