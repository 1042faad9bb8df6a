"""Texts as tokens: plain or in a chat template, and which tokens are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from loopscope.inputs.chat_rendering import SECOND_BOS, ChatRefused, RenderedText, render
from loopscope.specs.payloads.capture import ChatWork
from loopscope.specs.spec_json import PositionsJson, SteeredPositionsJson
from loopscope.state.failures import TerminalFailure
from loopscope.worker.tokenizers import TextEncoder

_VARIABLES = ("bos_token", "eos_token", "unk_token", "pad_token")
"""Special tokens that templates know by name."""
_MISSING = {
    "lastContent": "the text has no token of its own in the template",
    "afterTemplate": "the template has no token",
    "assistant": "chat.assistantPrefix has no token of its own",
}


@dataclass(frozen=True)
class EncodedText:
    """A text's tokens with one BOS; ``spans`` are the characters of ``whole`` that each stands for.

    ``content`` is where the text itself lies in ``whole``, ``template_end`` where the assistant's
    own words begin. BOS has an empty span if it is not written out.
    """

    text: str
    whole: str
    tokens: list[int]
    spans: list[tuple[int, int]]
    content: tuple[int, int]
    template_end: int

    def read(self, positions: PositionsJson) -> list[int]:
        """Return the places of the tokens that are read, rising; BOS is 0 and never among them.

        Raises ValueError where there is none.
        """
        count = len(self.tokens)
        match positions:
            case "last":
                return [count - 1]
            case "all":
                return list(range(1, count))
            case "lastContent":
                found = [self._last_before(self.content[1], self.content[0])]
            case "afterTemplate":
                found = [self._last_before(self.template_end)]
            case "assistant":
                found = [i for i in range(1, count) if self.spans[i][0] >= self.template_end]
            case {"token": str(part)}:
                end = self.text.rindex(part) + len(part)
                lead = len(self.text) - len(self.text.lstrip()) if self._is_stripped else 0
                found = [self._last_before(self.content[0] + end - lead, self.content[0])]
            case {"index": int(index)}:
                place = index + 1 if index >= 0 else count + index
                if not 1 <= place < count:
                    raise ValueError(f"it has {count - 1} tokens, none with the index {index}")
                return [place]
            case _:
                raise AssertionError(positions)  # the spec allows no others
        kept = [place for place in found if place > 0]
        if not kept:
            raise ValueError(_MISSING.get(str(positions), "the part has no token of its own"))
        return kept

    def steered(self, positions: SteeredPositionsJson) -> tuple[list[int], bool]:
        """Return the places of the tokens that are steered, and whether generated ones are.

        ``generated`` and ``assistant`` begin with the token that decides the first word of their
        own. BOS is 0 and never among them. Raises ValueError where there is none.
        """
        match positions:
            case "all":
                return self.read("all"), True
            case "opening":
                return self.read("all"), False
            case "generated":
                return self.read("last"), True
            case "assistant":
                return list(range(self.read("afterTemplate")[0], len(self.tokens))), True
            case _:
                return self.read(positions), False

    def part(self, place: int) -> str:
        """Return what a token belongs to: ``bos``, ``template``, ``text`` or ``assistant``."""
        if place == 0:
            return "bos"
        start, end = self.spans[place]
        if start >= self.template_end:
            return "assistant"
        return "text" if start < self.content[1] and end > self.content[0] else "template"

    @property
    def _is_stripped(self) -> bool:
        return self.content[1] - self.content[0] < len(self.text)

    def _last_before(self, end: int, start: int = 0) -> int:
        """Return the token that holds the last character before ``end``, 0 if none does."""
        places = range(len(self.tokens) - 1, 0, -1)
        inside = (i for i in places if self.spans[i][0] < end and self.spans[i][1] > start)
        return next(inside, 0)


def encoded_texts(
    model: TextEncoder, chat: ChatWork | None, texts: Sequence[str], *, spans: bool = True
) -> list[EncodedText]:
    """Return each text's tokens, in the chat template if there is one.

    Without ``spans`` those of plain texts are left out. Raises what ``encode`` raises,
    ``SpecialTokenInText`` also for the turns of a chat, and ``ChatTemplateRefused``.
    """
    if chat is None:
        return [_plain(model, text, spans) for text in texts]
    for words in (*texts, chat.get("system"), chat.get("assistantPrefix")):
        if words is not None:
            _check_words(model, words)
    named = {name: getattr(model.tokenizer, name, None) for name in _VARIABLES}
    known = {name: str(token) for name, token in named.items() if token is not None}
    try:
        rendered = render(chat, texts, known)
    except ChatRefused as refused:
        raise TerminalFailure("ChatTemplateRefused", str(refused)) from None
    return [_in_template(model, text, one) for text, one in zip(texts, rendered, strict=True)]


def token_ends(model: TextEncoder, text: str) -> list[int]:
    """Return how many characters of a plain text lie before the end of each of its tokens."""
    return [end for _, end in _spans(model, text)[1]]


def leading_bos(model: TextEncoder, tokens: Sequence[int]) -> int:
    """Return how many BOS tokens a text begins with."""
    return sum(1 for _ in takewhile(lambda token: token == model.bos_token, tokens))


def _plain(model: TextEncoder, text: str, spans: bool) -> EncodedText:
    tokens = model.encode(text)
    own = _spans(model, text)[1] if spans else [(0, 0)] * (len(tokens) - 1)
    return EncodedText(text, text, tokens, [(0, 0), *own], (0, len(text)), len(text))


def _in_template(model: TextEncoder, text: str, rendered: RenderedText) -> EncodedText:
    tokens, spans = _spans(model, rendered.text)
    if tokens[:1] != [model.bos_token]:
        tokens, spans = [model.bos_token, *tokens], [(0, 0), *spans]
    if leading_bos(model, tokens) > 1:
        raise TerminalFailure("ChatTemplateRefused", SECOND_BOS)
    return EncodedText(text, rendered.text, tokens, spans, rendered.content, rendered.template_end)


def _spans(model: TextEncoder, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    try:
        found = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    except NotImplementedError:
        raise TerminalFailure(
            "UnsupportedModel",
            "its tokenizer does not say which characters a token stands for, which chat templates "
            "and positions by meaning need; save it with a tokenizer.json",
        ) from None
    return list(found["input_ids"]), [(int(a), int(b)) for a, b in found["offset_mapping"]]


def _check_words(model: TextEncoder, words: str) -> None:
    """Refuse words that would begin or end a turn: they would be read as part of the template."""
    tokens = model.encode(words)[1:]
    unknown = model.tokenizer.unk_token_id
    found = next((t for t in tokens if t in model.special_tokens and t != unknown), None)
    if found is not None:
        raise TerminalFailure(
            "SpecialTokenInText",
            f"{words[:60]!r} holds the special token {model.tokenizer.decode([found])!r}, which "
            "means something in a chat template; remove it",
        )
