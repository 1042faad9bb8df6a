"""Tokens that stand for a concept: those that read as a whole word of its lexicon."""

from __future__ import annotations

from collections.abc import Sequence

from loopscope.specs.lexicon import folded
from loopscope.state.failures import TerminalFailure
from loopscope.worker.models import LoadedModel


def concept_tokens(model: LoadedModel, lexicon: Sequence[str]) -> list[int]:
    """Return the tokens that, without white space around them, are a word of the lexicon.

    Case and accents do not matter, as where texts are scored. Words of several tokens have none: a
    first piece (*La*, *de*) begins too much else. Raises TerminalFailure ``NoConceptToken``.
    """
    words = {_plain(word) for word in lexicon} - {""}
    last = min(len(model.tokenizer), model.causal.head.vocabulary)
    found = [
        token
        for token in range(last)
        if token not in model.special_tokens and _plain(model.written(token)) in words
    ]
    if not found:
        raise TerminalFailure(
            "NoConceptToken",
            f"none of the {len(words)} words of the lexicon is one token of this model, and the "
            "probability of the concept is that of such tokens; add shorter words to the lexicon",
        )
    return found


def _plain(text: str) -> str:
    return folded(text).strip().casefold()
