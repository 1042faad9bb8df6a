"""Arms that are words: the openings and neutral texts as each of them has them.

Of plain texts the words stand between BOS and the text; in a chat they are the system message.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.specs.chat_words import with_system
from loopscope.specs.payloads.capture import ChatWork
from loopscope.specs.payloads.steering import SteeringPayload
from loopscope.state.failures import TerminalFailure
from loopscope.worker.encoding import encoded_texts, token_ends
from loopscope.worker.stages.steering.arms import PLACEBO_PROMPT, SYSTEM_PROMPT
from loopscope.worker.tokenizers import TextEncoder

CUTS_TRIED = 8
"""Tokens by which a placebo's cut may be moved until its message is as long as the other."""

Tokens = list[list[int]]


@dataclass(frozen=True)
class Prompted:
    """Texts as an arm of words has them: tokens with BOS, in the spec's order."""

    openings: Tokens
    neutral_texts: Tokens


def prompted_texts(
    payload: SteeringPayload, encoder: TextEncoder, openings: Tokens, neutral_texts: Tokens
) -> dict[str, Prompted]:
    """Return the texts of the system prompt and of its placebo; empty without a system prompt.

    ``openings`` and ``neutral_texts`` are the tokens without them. Raises TerminalFailure
    ``ChatTemplateRefused`` and ``SpecialTokenInText``.
    """
    if "systemPrompt" not in payload:
        return {}
    chat = payload.get("chat")
    if chat is None:
        return {
            arm: Prompted(_after(prefix, openings), _after(prefix, neutral_texts))
            for arm, prefix in _prefixes(payload, encoder).items()
        }
    texts = [opening["text"] for opening in payload["openings"]]
    found: dict[str, Prompted] = {}
    for arm, words in _messages(payload, chat, encoder).items():
        own = _with(chat, payload, words)
        found[arm] = Prompted(
            _encoded(encoder, own, arm, texts), _encoded(encoder, own, arm, payload["neutralText"])
        )
    return found


def shared_from(tokens: Sequence[int], others: Sequence[Sequence[int]]) -> int:
    """Return the first place but BOS from which on all ``others`` end in the same tokens.

    It is ``len(tokens)`` where they share no end.
    """
    shared = len(tokens)
    for other in others:
        pairs = zip(reversed(tokens), reversed(other), strict=False)
        shared = min(shared, sum(1 for _ in itertools.takewhile(_equal, pairs)))
    return max(1, len(tokens) - shared)


def _equal(pair: tuple[int, int]) -> bool:
    return pair[0] == pair[1]


def _after(prefix: list[int], texts: Tokens) -> Tokens:
    return [[bos, *prefix, *tokens] for bos, *tokens in texts]


def _prefixes(payload: SteeringPayload, encoder: TextEncoder) -> dict[str, list[int]]:
    """Return the tokens of the system prompt and of its placebo, each kept apart from what follows.

    The placebo has as many tokens: its text is cut, or begun again, and ends in what separates the
    system prompt from the opening.
    """
    alone = encoder.encode(payload["systemPrompt"])[1:]
    prefix = encoder.encode(payload["systemPrompt"] + payload["systemPromptSeparator"])[1:]
    prefixes = {SYSTEM_PROMPT: prefix}
    if payload.get("placeboPrompt"):
        own = sum(1 for _ in itertools.takewhile(_equal, zip(alone, prefix, strict=False)))
        text = itertools.cycle(encoder.encode(payload["placeboPrompt"])[1:])
        prefixes[PLACEBO_PROMPT] = [*itertools.islice(text, own), *prefix[own:]]
    return prefixes


def _messages(payload: SteeringPayload, chat: ChatWork, encoder: TextEncoder) -> dict[str, str]:
    """Return the words of each arm, the placebo cut to the system prompt's number of tokens."""
    messages = {SYSTEM_PROMPT: payload["systemPrompt"]}
    if payload.get("placeboPrompt"):
        messages[PLACEBO_PROMPT] = _cut_placebo(payload, chat, encoder)
    return messages


def _cut_placebo(payload: SteeringPayload, chat: ChatWork, encoder: TextEncoder) -> str:
    """Return the placebo, cut or begun again, so that an opening has as many tokens with it.

    Words go through the template, so tokens may merge at the cut: it is moved by a token at a time,
    and the nearest is taken where none fits.
    """
    opening = [payload["openings"][0]["text"]]

    def length(arm: str, words: str) -> int:
        (tokens,) = _encoded(encoder, _with(chat, payload, words), arm, opening)
        return len(tokens)

    wanted = length(SYSTEM_PROMPT, payload["systemPrompt"])
    own = len(encoder.encode(payload["systemPrompt"])) - 1
    once = len(encoder.encode(payload["placeboPrompt"])) - 1
    text = " ".join([payload["placeboPrompt"]] * -(-(own + CUTS_TRIED) // once))
    ends = token_ends(encoder, text)
    nearest: tuple[int, str] | None = None
    for moved in sorted(range(-CUTS_TRIED, CUTS_TRIED + 1), key=lambda by: (abs(by), by)):
        place = own + moved - 1
        cut = text[: ends[place]].rstrip() if 0 <= place < len(ends) else ""
        if not cut.strip():
            continue
        missing = abs(length(PLACEBO_PROMPT, cut) - wanted)
        if nearest is None or missing < nearest[0]:
            nearest = missing, cut
        if not missing:
            break
    return nearest[1] if nearest is not None else text


def _with(chat: ChatWork, payload: SteeringPayload, words: str) -> ChatWork:
    message = with_system(chat.get("system"), words, payload["systemPromptSeparator"])
    return {**chat, "system": message}


def _encoded(encoder: TextEncoder, chat: ChatWork, arm: str, texts: Sequence[str]) -> Tokens:
    try:
        found = encoded_texts(encoder, chat, texts, spans=False)
    except TerminalFailure as failure:
        raise TerminalFailure(failure.reason, f"steering.{arm}: {failure.message}") from None
    if any(chat["system"].strip() in one.whole[one.content[1] :] for one in found):
        raise TerminalFailure(
            "ChatTemplateRefused",
            f"steering.{arm}: the chat template writes the system message behind the text, and it "
            "must stand before; use another template",
        )
    return [one.tokens for one in found]
