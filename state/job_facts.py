"""Facts of a job kept in columns of their own, so that they are read without its payload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from loopscope.specs.canonical import digest


def facts_of(stage: str, payload: Mapping[str, object]) -> dict[str, object]:
    """Return the columns that hold the facts of a job."""
    return {
        "model": model_of(payload),
        "passes": passes_of(stage, payload),
        "inputs": inputs_of(payload),
        "way": digest(payload),
    }


def model_of(payload: Mapping[str, object]) -> str | None:
    """Return the identity of the model that the job's worker must hold, if it needs one."""
    model = payload.get("model")
    return model.get("identity") if isinstance(model, dict) else None


def inputs_of(payload: Mapping[str, object]) -> list[str]:
    """Return the digests of the artifacts that the job reads, in order."""
    return sorted(set(references_in(payload)))


def passes_of(stage: str, payload: Mapping[str, object]) -> str | None:
    """Return what stands for the forward passes of a capture: its model and its texts, in order.

    Captures in which it differs share no pass. Those in which it agrees may.
    """
    prompts = payload.get("prompts")
    if stage != "capture" or not isinstance(prompts, list):
        return None
    return digest([model_of(payload), [prompt["text"] for prompt in prompts]])


def references_in(value: object) -> Iterator[str]:
    """Yield the digests of the artifacts that a payload, manifest or status refers to."""
    if isinstance(value, dict):
        if isinstance(value.get("digest"), str) and "contentDigest" in value:
            yield value["digest"]
        for item in value.values():
            yield from references_in(item)
