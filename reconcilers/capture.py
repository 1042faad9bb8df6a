"""Capture: the residual stream of two prompt sets at one hook."""

from __future__ import annotations

from typing import Any

from reconcilers.plan import Blocked, Desired, Snapshot, Wanted
from reconcilers.references import input_references
from reconcilers.stage import resolved_input
from specs.actions import Action


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
    prompts = [
        {
            "id": f"{condition}-{number:04d}",
            "text": text,
            "condition": condition,
            "split": "discover",
        }
        for condition in ("target", "neutral")
        for number, text in enumerate(spec["prompts"][condition]["texts"])
    ]
    declared = {
        "model": facts["ref"]["identity"],
        "hook": spec["hook"],
        "prompts": prompts,
        "positions": spec["positions"],
        "maxTokens": spec["maxTokens"],
    }
    payload = {**declared, "model": facts["ref"]}
    return Wanted(Action("capture", declared, payload), {"model": facts})
