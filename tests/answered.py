"""Answers to questions, published by hand; and a server that asks without a process of its own."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from starlette.concurrency import run_in_threadpool

from loopscope.cli import application
from loopscope.context import CommandError
from loopscope.server.answers import Refused
from loopscope.server.page.apart import Apart
from loopscope.specs.artifacts.question import ANSWERS, ASKED_ACTIVATIONS, ASKED_TOKENS
from loopscope.specs.canonical import digest
from loopscope.specs.keys import Key
from loopscope.specs.status import ArtifactReference, Condition, Status
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import objects
from loopscope.state.failures import Failure
from loopscope.state.folder import StateFolder
from loopscope.worker.stages.evidence.stage import write_rows

STRONGEST = 4.5


@contextlib.contextmanager
def asked_in_process() -> Iterator[None]:
    """Let a server run its commands in a thread: a process each takes seconds to begin."""

    async def run(self: Apart, *words: str) -> bytes:
        return await run_in_threadpool(_said, self._site.state, words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Apart, "run", run)
        yield


def _said(state: StateFolder, words: tuple[str, ...]) -> bytes:
    """Return what a command prints; its refusal is that of the server."""
    program = typer.main.get_command(application(words))
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            program(["--state", str(state.path), *words], standalone_mode=False)
    except (CommandError, Failure) as refused:
        raise Refused(409, str(refused)) from None
    return out.getvalue().encode()


def answer(state: StateFolder, name: str, now: float) -> None:
    """Answer a question: its first latent fires on its last word, or both texts go on."""
    key = Key("Question", "default", name)
    with state.database.read() as connection:
        record = objects.get(connection, key)
    assert record is not None
    spec = record.spec
    words = [f" {word}" if number else word for number, word in enumerate(spec["text"].split())]
    firing, texts = [], []
    if "latents" in spec:
        firing = [("coarse", spec["latents"]["coarse"][0], len(words), STRONGEST)]
    else:
        steered = spec["steered"]
        texts = [
            ("none", 0.0, 0.0, " a town", [1, 2], 0),
            (steered["arm"], steered["strength"], 3.5, " Paris <b>now</b>", [1, 3], 2),
        ]
    work = digest(spec)
    staging = state.artifacts.staging_folder(work, 1)
    _write(staging, words, firing, texts, steered="steered" in spec)
    manifest = {
        "stage": "question", "digest": work, "metrics": {"tokens": len(words)}, "createdAt": now,
        "codeRevision": 1,
    }  # fmt: skip
    artifact = state.artifacts.seal(staging, manifest)
    ready = Condition("Ready", "True", "Succeeded", "question is done", record.generation, now)
    reference = ArtifactReference("question", work, artifact.content_digest)
    with state.database.write() as connection:
        state.artifacts.publish(staging, artifact)
        artifact_index.record(connection, artifact)
        again = objects.get(connection, key)
        assert again is not None
        status = Status(record.generation, (ready,), {"tokens": len(words)}, {}, reference)
        objects.update_status(connection, again, status, work)


def _write(
    out: Path,
    words: list[str],
    firing: list[tuple[str, int, int, float]],
    texts: list[tuple[str, float, float, str, list[int], int]],
    *,
    steered: bool,
) -> None:
    rows = [(place + 1, word, steered) for place, word in enumerate(words)]
    write_rows(out, ASKED_TOKENS, rows)
    write_rows(out, ASKED_ACTIVATIONS, firing)
    write_rows(out, ANSWERS, texts)
