"""The table of ``top``: the workers, what they hold, do and take."""

from __future__ import annotations

from collections.abc import Sequence

from loopscope.reports.text_table import TextTable
from loopscope.views.numbers import age, byte_size, count
from loopscope.views.workers import WorkerView

WORKER_COLUMNS = [
    *("WORKER", "DEVICE", "MODEL", "MEMORY", "PROCESSOR", "JOB", "OBJECT", "PHASE", "TOKENS/S"),
]


def workers_table(found: Sequence[WorkerView]) -> TextTable:
    """Return a row for each worker."""
    return TextTable(WORKER_COLUMNS, [_row(one) for one in found])


def _row(one: WorkerView) -> list[str]:
    job, at = one.job, one.progress
    return [
        one.name.partition("@")[0],
        one.device,
        one.model or "-",
        byte_size(one.memory_bytes) if one.memory_bytes is not None else "-",
        age(one.processor_seconds) if one.processor_seconds is not None else "-",
        str(job.id) if job is not None else "-",
        str(job.object) if job is not None else "idle",
        f"{at.phase} {at.done}/{at.total} {at.unit}" if at is not None else "-",
        count(one.tokens_per_second) if one.tokens_per_second is not None else "-",
    ]
