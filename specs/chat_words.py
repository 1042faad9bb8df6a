"""Words about chat templates that are needed where no spec is validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OF_THE_MODEL = "model"
"""What ``template`` says to mean the one that comes with the model."""
CHAT_TEMPLATE = "chatTemplate"
"""In a reference to a model: its chat template is wanted as well."""
TEMPLATE_CHARACTERS_MAX = 200_000
"""The longest templates on the hub, with tools and dates, have 20,000."""
IN_A_CHAT = ("assistant", "afterTemplate")
"""Positions that a template makes."""
SEVERAL = ("all", "assistant")
"""Positions that keep more than one token of a prompt."""


def needs_chat(steered: str) -> str:
    """Return why these tokens of plain text cannot be steered."""
    return f"steering.positions {steered} needs prompts.chat: there is no template without"


def with_system(own: str | None, words: str, separator: str) -> str:
    """Return the system message of an arm of words: behind that of all arms, if they have one."""
    return words if own is None else f"{own}{separator}{words}"


def needs_template(sets: Mapping[str, Any]) -> bool:
    """Whether stored prompt sets are put into the template that comes with their model."""
    chat = sets.get("chat")
    return chat is not None and chat["template"] == OF_THE_MODEL and "templateText" not in chat
