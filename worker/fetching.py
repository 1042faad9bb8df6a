"""``python -m loopscope.worker.fetching``: inputs of specs, brought into the caches ahead of time.

Resolved references come in as one JSON document; for each of them goes out what happens, a line
of JSON each. Every file is downloaded, hashed and converted as a job would do it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Literal, TypedDict, cast

from loopscope.inputs.files import default_cache
from loopscope.specs.payloads.references import DictionaryReference, ModelReference
from loopscope.state.failures import TerminalFailure, TransientFailure

CONVERTING = "Converting"
"""How the phases begin in which a copy is made."""

PERCENT_STEP = 25
"""So often it is said how far a conversion is."""


class Asked(TypedDict):
    """A resolved model or dictionary."""

    kind: Literal["model", "dictionary"]
    ref: ModelReference | DictionaryReference


class Fetched(TypedDict):
    """What lies in the caches now, how many of its files were downloaded, and whether copied."""

    files: int
    bytes: int
    downloaded: int
    converted: bool


def main() -> None:
    """Fetch what is asked for on standard input: ``percent`` meanwhile, ``fetched`` or ``error``.

    A line has the number of the reference in ``at``; what cannot be had keeps nothing else back.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints is nothing to who asked
    asked: list[Asked] = json.load(sys.stdin)

    for at, one in enumerate(asked):
        answer = partial(_answer, answers, at)
        try:
            answer(fetched=fetch(one, answer))
        except (TerminalFailure, TransientFailure) as failure:
            passes = isinstance(failure, TransientFailure)
            answer(error=f"{failure.reason}: {failure.message}", passes=passes)


def _answer(answers: IO[str], at: int, **said: object) -> None:
    answers.write(json.dumps({"at": at, **said}) + "\n")
    answers.flush()


def fetch(asked: Asked, tell: Callable[..., None]) -> Fetched:
    """Download, hash and convert one input; ``tell(phase=…, percent=…)`` meanwhile.

    Raises TerminalFailure and TransientFailure.
    """
    told: list[tuple[str, int]] = []

    def progress(phase: str, done: int, total: int, unit: str, tokens: int | None = None) -> None:
        percent = 100 * done // max(1, total) // PERCENT_STEP * PERCENT_STEP
        if (phase, percent) not in told:
            told.append((phase, percent))
            tell(phase=phase, percent=percent)

    absent = _absent(asked)
    paths = (
        _model_files(asked, progress) if asked["kind"] == "model" else _dictionary(asked, progress)
    )
    return {
        "files": len(paths),
        "bytes": sum(path.stat().st_size for path in paths),
        "downloaded": absent,
        "converted": any(phase.startswith(CONVERTING) for phase, _ in told),
    }


def _model_files(asked: Asked, progress: Callable[..., None]) -> list[Path]:
    from loopscope.worker.model_sources import local_model_folder

    ref = cast(ModelReference, asked["ref"])
    folder = local_model_folder(ref, default_cache(), progress)
    if ref["source"]["kind"] in ("folder", "hub"):
        return [folder / name for name in ref["files"]]
    return [path for path in folder.iterdir() if path.is_file()]


def _dictionary(asked: Asked, progress: Callable[..., None]) -> list[Path]:
    from loopscope.worker.dictionaries import load_dictionary, located

    ref = cast(DictionaryReference, asked["ref"])
    load_dictionary(ref, progress)
    return [located(ref["source"], name) for name in ref["files"]]


def _absent(asked: Asked) -> int:
    """Return how many files of an input have to come from the hub."""
    from huggingface_hub import try_to_load_from_cache

    source = asked["ref"]["source"]
    if source["kind"] != "hub":
        return 0
    folder = source.get("path")
    names = [f"{folder}/{name}" if folder else name for name in asked["ref"]["files"]]
    cached = [
        try_to_load_from_cache(source["repo"], name, revision=source["revision"]) for name in names
    ]
    return sum(not isinstance(path, str) for path in cached)


if __name__ == "__main__":
    main()
