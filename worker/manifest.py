"""Provenance in a manifest, beside the payload's hashes."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import torch

from loopscope.specs.actions import CODE_REVISIONS
from loopscope.state.artifacts.manifests import Manifest
from loopscope.state.records import JobRecord
from loopscope.worker.makers import processor_of

_LIBRARIES = (
    "torch",
    "transformers",
    "transformer-lens",
    "sae-lens",
    "numpy",
    "scipy",
    "loopscope",
)
_TEXT_FIELDS = ("prompts", "calibrationText", "openings", "neutralText", "lexicon")
_FIELDS_OF_PROMPTS = ("splits", "groups")


def manifest_of(
    job: JobRecord,
    metrics: Mapping[str, object],
    device: str,
    seconds: float,
    created_at: float,
    batch_divisor: int = 1,
    code: str = "",
    makers: Sequence[str] = (),
) -> Manifest:
    """Return the manifest of a finished job; the store adds files and content digest.

    Device, timings, library versions and ``code``, the hash of the sources that ran, are recorded
    here and never enter a digest. A
    ``batchDivisor`` of 2 means that batches were halved because memory ran out: floats may then
    differ in their last digits from those of an undisturbed run. ``makers`` are named where shards
    of several kinds of processor or card were allowed.
    """
    stage = next(name for name in CODE_REVISIONS if name == job.stage)
    found: Manifest = {
        "stage": job.stage,
        "digest": job.digest,
        "codeRevision": CODE_REVISIONS[stage],
        "codeHash": code,
        "inputs": _without_texts(job.payload),
        "metrics": metrics,
        "device": device,
        "batchDivisor": batch_divisor,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 3),
        "createdAt": created_at,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": processor_of(device),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }
    if makers:
        found["makers"] = list(makers)
    return found


def _without_texts(payload: Mapping[str, object]) -> dict[str, object]:
    """Leave out long lists: they stand in the payload tables and in the spec."""
    counted = {
        **dict.fromkeys(_TEXT_FIELDS, "texts"),
        **dict.fromkeys(_FIELDS_OF_PROMPTS, "prompts"),
    }
    found = {
        name: f"{len(value)} {counted[name]}"
        if name in counted and isinstance(value, list)
        else value
        for name, value in payload.items()
    }
    captured = payload.get("captured")  # a capture's payload within that of a decomposition
    if isinstance(captured, Mapping):
        found["captured"] = _without_texts(captured)
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ImportError:
        return None
