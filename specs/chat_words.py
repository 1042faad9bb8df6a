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
SEVERAL = ("all", "assistant")
"""Positions that keep more than one token of a prompt."""


def needs_template(sets: Mapping[str, Any]) -> bool:
    """Whether stored prompt sets are put into the template that comes with their model."""
    chat = sets.get("chat")
    return chat is not None and chat["template"] == OF_THE_MODEL and "templateText" not in chat
