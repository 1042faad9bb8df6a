"""``python -m loopscope.worker.token_listing``: the tokens of some texts, for people.

One request of JSON comes in, one answer goes out. Loads a tokenizer and no weights.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NotRequired, TypedDict

from loopscope.specs.payloads.capture import ChatWork
from loopscope.specs.payloads.references import ModelReference
from loopscope.specs.spec_json import PositionsJson, SteeredPositionsJson
from loopscope.state.failures import TerminalFailure, TransientFailure
from loopscope.worker.encoding import EncodedText, encoded_texts
from loopscope.worker.model_sources import local_model_folder, only_its_files
from loopscope.worker.tokenizers import TextEncoder, load_tokenizer

WEIGHTS = (".safetensors", ".safetensors.index.json")


class AskedTexts(TypedDict):
    """Texts to be shown; ``positions`` where some of their tokens are read, ``steered`` likewise.

    ``chat`` is theirs if it is not that of the request.
    """

    name: str
    texts: list[str]
    positions: PositionsJson | None
    steered: SteeredPositionsJson | None
    chat: NotRequired[ChatWork]


class TokenRequest(TypedDict):
    """What is to be shown, and with which tokenizer."""

    model: ModelReference
    cache: str
    chat: NotRequired[ChatWork]
    sets: list[AskedTexts]


class ShownToken(TypedDict):
    """A token: its text, its number, what it belongs to, and whether it is read and steered."""

    text: str
    id: int
    part: str
    read: bool
    steered: bool


class ShownText(TypedDict):
    """A text with its tokens, and whether those that it generates are steered."""

    name: str
    text: str
    generatedSteered: bool
    tokens: list[ShownToken]


def main() -> None:
    """Answer the request on standard input: ``texts``, or ``error``."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints is nothing to who asked
    request: TokenRequest = json.load(sys.stdin)
    try:
        answer: dict[str, object] = {"texts": listed(request)}
    except (TerminalFailure, TransientFailure) as failure:
        answer = {"error": str(failure)}
    with answers:
        json.dump(answer, answers)


def listed(request: TokenRequest) -> list[ShownText]:
    """Return each text with its tokens. Raises TerminalFailure and TransientFailure."""
    encoder = _loaded(request)
    return [
        _shown(encoder, one, f"{asked['name']}-{number:04d}", asked)
        for asked in request["sets"]
        for number, one in enumerate(
            encoded_texts(encoder, asked.get("chat", request.get("chat")), asked["texts"])
        )
    ]


def _loaded(request: TokenRequest) -> TextEncoder:
    ref = request["model"]
    if ref["source"]["kind"] in ("folder", "hub"):
        kept = {name: one for name, one in ref["files"].items() if not name.endswith(WEIGHTS)}
        ref = {**ref, "files": kept}
    folder = local_model_folder(ref, Path(request["cache"]), lambda *_: None)
    with only_its_files(folder, ref) as view:
        return load_tokenizer(view, ref)


def _shown(encoder: TextEncoder, one: EncodedText, name: str, asked: AskedTexts) -> ShownText:
    try:
        positions = asked["positions"]
        read = set(one.read(positions)) if positions is not None else set()
        steered, generated = one.steered(asked["steered"]) if asked["steered"] else ([], False)
    except ValueError as error:
        raise TerminalFailure("NoSuchPosition", f"{name}: {error}") from None
    tokens: list[ShownToken] = [
        {
            "text": encoder.written(token),
            "id": token,
            "part": one.part(place),
            "read": place in read,
            "steered": place in steered,
        }
        for place, token in enumerate(one.tokens)
    ]
    return {"name": name, "text": one.text, "generatedSteered": generated, "tokens": tokens}


if __name__ == "__main__":
    main()
