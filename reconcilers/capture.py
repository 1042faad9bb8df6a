"""Capture: the residual stream of two prompt sets at one hook."""

from __future__ import annotations

from typing import Any

from loopscope.reconcilers.plan import Blocked, Desired, Snapshot, Wanted
from loopscope.reconcilers.references import input_references
from loopscope.reconcilers.stage import resolved_input
from loopscope.specs.actions import Action
from loopscope.specs.splits import Splits


def desired(snapshot: Snapshot) -> Desired:
    """Return the capture that the spec asks for, once the model is resolved."""
    (reference,) = input_references(snapshot.object)
    model = resolved_input(snapshot, reference)
    if isinstance(model, Blocked):
        return model
    facts: dict[str, Any] = model.facts or {}
    spec = snapshot.object.spec
    layers = facts.get("n_layers")
    if layers is not None and int(spec["hook"].split(".")[1]) >= layers:
        return Blocked(
            "InputMismatch",
            f"{spec['model']['name']} has {layers} layers, so there is no {spec['hook']}; "
            f"use blocks.0 to blocks.{layers - 1}",
            terminal=True,
        )
    prompts = _prompts(spec)
    declared = {
        "model": facts["ref"]["identity"],
        "hook": spec["hook"],
        "prompts": prompts,
        "positions": spec["positions"],
        "maxTokens": spec["maxTokens"],
    }
    if "calibrationText" in spec:
        declared["calibrationText"] = spec["calibrationText"]["texts"]
    payload = {**declared, "model": facts["ref"]}
    return Wanted(Action("capture", declared, payload), {"model": facts})


_CONDITIONS = {"target": "target", "neutral": "neutral", "hard-negative": "hardNegatives"}


def _prompts(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every prompt with its condition and split, in the order of the tables."""
    splits = Splits.model_validate(spec.get("splits", {}))
    conditions = {
        condition: spec["prompts"][field]["texts"]
        for condition, field in _CONDITIONS.items()
        if field in spec["prompts"]
    }
    return [
        {
            "id": f"{condition}-{number:04d}",
            "text": text,
            "condition": condition,
            "split": split,
        }
        for condition, texts in conditions.items()
        for number, (text, split) in enumerate(zip(texts, splits.of_prompts(texts), strict=True))
    ]
