"""Texts put into a chat template, with the places of their parts.

A template is a program that came with a model. It runs in a child process with little memory and
processor time (``chat_child``), and what it returns is checked: a template that drops the system
message, or changes the text, is refused.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from loopscope.specs.json_values import JsonObject
from loopscope.specs.legible import is_encodable
from loopscope.specs.payloads.capture import ChatWork

CHILD = Path(__file__).with_name("chat_child.py")
SECONDS_MIN = 10
SECONDS_PER_TEXT = 0.002
"""Processor time: a long template takes a tenth of that for a text."""
WALL_FACTOR = 20
"""A machine with much other work gives a process a twentieth of a processor at worst."""
BYTES_MAX = 2**30
CHARACTERS_MAX = 256 * 2**20
MESSAGE_CHARACTERS_MAX = 300
MARK = "Loopscope puts this in the place of a text."
"""Shows where a template puts a text. No template has a reason to change it."""
BOS_MARK = "<this begins a text>"
SECOND_BOS = "the chat template begins with two BOS tokens; take one of them out"


class ChatRefused(ValueError):
    """A template that cannot be used, in one sentence."""


@dataclass(frozen=True)
class RenderedText:
    """A text in its template.

    ``content`` are the first and last-but-one character of the text itself, ``template_end`` is the
    number of characters up to the template's end; behind it stands the assistant's prefix.
    """

    text: str
    content: tuple[int, int]
    template_end: int


def render(
    chat: ChatWork, texts: Sequence[str], special_tokens: Mapping[str, str]
) -> list[RenderedText]:
    """Return each text as the chat template has it. Raises ChatRefused.

    ``special_tokens`` are the variables that templates know, such as ``bos_token``.
    """
    sample, *rendered = _filled(chat, [MARK, *texts], special_tokens)
    if sample.count(MARK) != 1:
        found = "leaves the text out" if MARK not in sample else "repeats or changes the text"
        raise ChatRefused(f"the chat template {found}; use another template")
    if any("\0" in one or not is_encodable(one) for one in rendered):
        raise ChatRefused(
            "the chat template writes a character that is no text (U+0000 or half a pair); use "
            "another template"
        )
    system = chat.get("system")
    if system is not None and system.strip() not in sample:
        raise ChatRefused(
            "the chat template drops the system message; leave it out and write it into the texts, "
            "or use another template"
        )
    tail = sample.partition(MARK)[2]
    prefix = chat.get("assistantPrefix", "")
    return [_placed(text, whole, tail, prefix) for text, whole in zip(texts, rendered, strict=True)]


def why_refused(chat: ChatWork, text: str) -> str | None:
    """Return why a template cannot be used, as one text shows; None if it can.

    For checks before a tokenizer is loaded: the BOS is a mark of our own. Remembered.
    """
    return _why_refused(json.dumps(chat), text)


@lru_cache(maxsize=256)
def _why_refused(chat: str, text: str) -> str | None:
    try:
        (found,) = render(json.loads(chat), [text], {"bos_token": BOS_MARK, "eos_token": ""})
    except ChatRefused as refused:
        return str(refused)
    return SECOND_BOS if found.text.startswith(2 * BOS_MARK) else None


def _placed(text: str, whole: str, tail: str, prefix: str) -> RenderedText:
    head = whole.removesuffix(tail) if whole.endswith(tail) else None
    own = next((one for one in (text, text.strip()) if head and head.endswith(one)), None)
    if head is None or own is None:
        raise ChatRefused(
            f"the chat template changes the text {text[:60]!r}, or what stands behind it; use "
            "another template"
        )
    return RenderedText(whole + prefix, (len(head) - len(own), len(head)), len(whole))


def _filled(chat: ChatWork, texts: Sequence[str], special_tokens: Mapping[str, str]) -> list[str]:
    seconds = SECONDS_MIN + round(SECONDS_PER_TEXT * len(texts))
    request = {
        "template": chat["template"],
        "system": chat.get("system"),
        "addGenerationPrompt": chat["addGenerationPrompt"],
        "texts": list(texts),
        "specialTokens": dict(special_tokens),
        "secondsMax": seconds,
        "bytesMax": BYTES_MAX,
        "charactersMax": CHARACTERS_MAX,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(CHILD)],
            input=json.dumps(request),
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=WALL_FACTOR * seconds,
        )
    except subprocess.TimeoutExpired:
        raise ChatRefused(_TOO_LONG.format(seconds=seconds)) from None
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise ChatRefused(_TOO_LONG.format(seconds=seconds))
    try:
        answer: JsonObject = json.loads(done.stdout)
    except ValueError:
        raise ChatRefused(
            "the chat template ended the process that filled it (too much memory?); use another "
            "template"
        ) from None
    rendered = answer.get("rendered")
    if isinstance(rendered, list):
        return [str(one) for one in rendered]
    words = " ".join(str(answer.get("message", "")).split())[:MESSAGE_CHARACTERS_MAX]
    raise ChatRefused(
        _ERRORS[str(answer["error"])].format(words=words, megabytes=BYTES_MAX // 2**20)
    )


_TOO_LONG = (
    "the chat template takes more than {seconds} seconds of a processor (a loop without an end?); "
    "use another template"
)
_ERRORS = {
    "syntax": "the chat template is no valid Jinja: {words}; use another template",
    "refused": "the chat template refuses the conversation: {words}; without a system "
    "message, or with another template, it may work",
    "failed": "the chat template fails: {words}; use another template",
    "memory": "the chat template takes more than {megabytes} MB of memory; use another template",
    "long": "the chat template makes very long texts; use another template",
}
