"""Companions of a capture: pending captures that its forward passes can serve.

They differ in the hook, or in what is kept of what the model shows, and in nothing that the passes
see. Shards are computed for them and sealed in their own work folders; they publish themselves. A
companion gets no shard that its own passes would not have made, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from loopscope.specs.payloads.capture import CapturedPrompt, CapturePayload
from loopscope.state.db import jobs
from loopscope.state.folder import StateFolder
from loopscope.state.records import JobRecord
from loopscope.worker.makers import shards_of
from loopscope.worker.shards import Shards

COMPANIONS_MAX = 16
"""How many other captures one forward pass serves: their vectors are in memory at once."""

ShardKind = Literal["capture", "calibration"]

_TEXTS: dict[ShardKind, Literal["prompts", "calibrationText"]] = {
    "capture": "prompts",
    "calibration": "calibrationText",
}
"""The field that holds the texts of a kind of shards."""
_UNSEEN: dict[ShardKind, tuple[str, ...]] = {
    "capture": ("hook", "positions", "maxTokens"),
    "calibration": ("hook", "positions"),
}
"""Fields that the passes do not see: each hook has its own shards, positions are cut from shards,
and a prompt over the limit is refused before any pass (see ``pending_companions``); a calibration
text is read in pieces of the limit."""
_UNSEEN_OF_A_PROMPT = ("id", "condition")


@dataclass(frozen=True)
class Companion:
    """Another capture of the same texts by the same model, and where its shards belong."""

    hook: str
    shards: Shards


def pending_companions(
    state: StateFolder, job: JobRecord, kind: ShardKind, *, device: str
) -> list[Companion]:
    """Return the pending captures whose shards of a kind ``job`` can make, oldest first.

    One that allows fewer tokens might refuse its texts, so that it would make no shard.
    """
    with state.database.read() as connection:
        candidates = [jobs.get(connection, one) for one in jobs.served_by(connection, job)]
    own, own_seen = _payload(job), _seen_by_the_passes(job, kind)
    return [
        Companion(payload["hook"], shards_of(state.artifacts.shards(other.digest), device))
        for other in candidates
        if other is not None
        and (payload := _payload(other))["maxTokens"] >= own["maxTokens"]
        and _seen_by_the_passes(other, kind) == own_seen
    ][:COMPANIONS_MAX]


def _payload(job: JobRecord) -> CapturePayload:
    return cast(CapturePayload, job.payload)  # only captures are served


def _seen_by_the_passes(job: JobRecord, kind: ShardKind) -> dict[str, object]:
    """Return all that shards of a kind are made from.

    Whatever a payload will hold some day counts, until it is named above as not seen.
    """
    left_out = (*_UNSEEN[kind], *_TEXTS.values())
    seen = {name: value for name, value in job.payload.items() if name not in left_out}
    payload = _payload(job)
    texts: list[str] | list[CapturedPrompt] = payload.get(_TEXTS[kind], [])
    return {
        **seen,
        "model": payload["model"]["identity"],
        "texts": [_seen_of_a_text(one) for one in texts],
        "code revision": job.code_revision,
    }


def _seen_of_a_text(text: str | CapturedPrompt) -> dict[str, object]:
    prompt: Mapping[str, object] = {"text": text} if isinstance(text, str) else text
    return {name: value for name, value in prompt.items() if name not in _UNSEEN_OF_A_PROMPT}
