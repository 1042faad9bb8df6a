"""The chat template of a capture's texts, as stages get it."""

from __future__ import annotations

from loopscope.specs.payloads.capture import ChatWork
from loopscope.specs.spec_json import PromptSetsJson


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
