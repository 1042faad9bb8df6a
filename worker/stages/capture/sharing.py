"""A share of a capture: some of its shards, found by the capture's own job when it gets there."""

from __future__ import annotations

from loopscope.specs.payloads.capture import CapturePayload
from loopscope.worker.context import StageContext
from loopscope.worker.stages.capture.stage import (
    WRITTEN_SHARDS,
    calibration_pieces,
    captured_shards,
    encoded_prompts,
)


def run(payload: CapturePayload, context: StageContext) -> None:
    """Seal the shards of the share, in the order of a capture: prompts, then calibration text.

    Raises what the capture raises for the same texts.
    """
    model = context.model(payload["model"])
    tokens = [one.tokens for one in encoded_prompts(model, payload)]
    ids = [prompt["id"] for prompt in payload["prompts"]]
    pieces = calibration_pieces(model, payload)
    names, cut = [name for name, _ in pieces], [tokens for _, tokens in pieces]
    hooks = [(payload["hook"], "")]
    if "writeHook" in payload:
        hooks.append((payload["writeHook"], WRITTEN_SHARDS))
    for hook, prefix in hooks:
        captured_shards(model, hook, tokens, ids, context, "capture", prefix)
        captured_shards(model, hook, cut, names, context, "calibration", prefix)
