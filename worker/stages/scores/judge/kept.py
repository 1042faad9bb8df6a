"""Answers of judges, kept by what was asked: a question is asked once, whatever asks it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from filelock import FileLock, Timeout

from loopscope.inputs.files import LOCK_TIMEOUT_SECONDS
from loopscope.specs.canonical import digest
from loopscope.worker.stages.scores.judge.questions import said
from loopscope.worker.stages.scores.scored_texts import Answer

FILE_BYTES_MAX = 256 * 2**20
_FIELDS = {
    "question": str, "text_sha256": str, "order": str, "answer": str, "said": str, "served": str,
    "input_tokens": int, "output_tokens": int,
}  # fmt: skip


class KeptAnswers:
    """The answers of one model, a line of JSON each; a line that was cut off counts for nothing."""

    def __init__(self, cache: Path, model: str) -> None:
        self._path = cache / "loopscope" / "judged" / f"{digest(model)}.jsonl"

    def read(self) -> dict[str, Answer]:
        """Return the answers by the digest of their question; none where they cannot be read."""
        try:
            with self._path.open("rb") as file:
                lines = file.read(FILE_BYTES_MAX).split(b"\n")
        except OSError:
            return {}
        found = (_answer(line) for line in lines)
        return {one.question: one for one in found if one is not None}

    def add(self, answers: Sequence[Answer]) -> None:
        """Append answers. A cache that cannot be written costs another request some day."""
        lines = "".join(json.dumps(asdict(one), sort_keys=True) + "\n" for one in answers)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{self._path}.lock", timeout=LOCK_TIMEOUT_SECONDS)
            with lock, self._path.open("ab") as file:
                file.write(b"\n" + lines.encode())  # behind what a killed writer left
        except (OSError, Timeout):
            return


def _answer(line: bytes) -> Answer | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or set(found) != set(_FIELDS):
        return None
    if not all(type(found[name]) is kind for name, kind in _FIELDS.items()):
        return None
    answer = Answer(**found)
    return replace(answer, said=said(answer.answer, answer.order))
