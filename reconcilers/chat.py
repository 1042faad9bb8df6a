"""The chat template of a capture's texts, as stages get it, and with a system prompt."""

from __future__ import annotations

from loopscope.specs.chat_words import with_system
from loopscope.specs.payloads.capture import ChatWork
from loopscope.specs.rules import SYSTEM_PROMPT_SEPARATOR
from loopscope.specs.spec_json import PromptSetsJson, SteeringRulesJson


def chat_of(sets: PromptSetsJson, of_the_model: str | None) -> ChatWork | None:
    """Return what texts are put into; None where they are read as plain text.

    ``of_the_model`` is the template that comes with the model. The template's text stands in the
    digest, whichever file it was read from.
    """
    chat = sets.get("chat")
    if chat is None:
        return None
    template = chat.get("templateText", of_the_model)
    assert template is not None, "a reference whose template is wanted resolves with one"
    work: ChatWork = {
        "template": template,
        "addGenerationPrompt": chat["addGenerationPrompt"],
    }
    if "system" in chat:
        work["system"] = chat["system"]
    if "assistantPrefix" in chat:
        work["assistantPrefix"] = chat["assistantPrefix"]
    return work


def with_system_prompt(chat: ChatWork, steering: SteeringRulesJson | None) -> ChatWork | None:
    """Return the chat of the arm *systemPrompt*; None where there is no such arm."""
    if steering is None or "systemPrompt" not in steering:
        return None
    separator = steering.get("systemPromptSeparator", SYSTEM_PROMPT_SEPARATOR)
    message = with_system(chat.get("system"), steering["systemPrompt"], separator)
    return {**chat, "system": message}
