"""The needs of a slot in Ray's names for them, and whether nodes have that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loopscope.controller.settings import Settings

Needs = Mapping[str, float]
"""Amounts by name: ``CPU``, ``GPU``, ``memory`` in bytes, and what a cluster calls its own."""
SHARE_OF_A_NODE = 0.001
"""Of the mark that each node has one of: enough to be there."""


def needs_of(device: str, memory_bytes: int, settings: Settings, node: str | None = None) -> Needs:
    """Return what a worker on this device asks of a node, and of which node if one is named."""
    kind = {"GPU": 1.0} if device != "cpu" else {}
    memory = max(memory_bytes, *settings.stage_memory_bytes.values(), 0)
    found = {"CPU": 1.0, **kind, "memory": float(memory), **settings.ray_resources}
    if node is not None:
        found[node] = SHARE_OF_A_NODE
    return {name: amount for name, amount in found.items() if amount}


def lacking(needs: Needs, nodes: Sequence[Needs]) -> str | None:
    """Return in words what none of the nodes has all of; None if one has it."""
    if any(_has(node, needs) for node in nodes):
        return None
    if not nodes:
        return "has no living node"
    most = {name: max(node.get(name, 0.0) for node in nodes) for name in needs}
    missing = [
        f"{_amount(name, needs[name])} (the most that one has is {_amount(name, most[name], '')})"
        for name in needs
        if most[name] < needs[name]
    ]
    if missing:
        return f"has no node with {', '.join(missing)}"
    together = ", ".join(_amount(name, amount) for name, amount in needs.items())
    return f"has no one node with {together} together"


def still_free(needs: Sequence[Needs], free: Needs) -> list[bool]:
    """Return which of these fit, in this order, each beside those before it."""
    left, answers = dict(free), []
    for need in needs:
        answers.append(_has(left, need))
        if answers[-1]:
            left |= {name: left[name] - amount for name, amount in need.items()}
    return answers


def _has(node: Needs, needs: Needs) -> bool:
    return all(node.get(name, 0.0) >= amount for name, amount in needs.items())


def _amount(name: str, amount: float, before: str | None = None) -> str:
    words = f"{int(amount):,} bytes" if name == "memory" else f"{amount:g}"
    return words if before == "" else f"{name} {words}"
