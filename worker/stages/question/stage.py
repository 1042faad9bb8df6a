"""Stage *question*: one text, read by latents or gone on with under one arm.

What steers is the code of the stage *steering*, with its random numbers: an opening of that
steering goes on here as it did there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from loopscope.specs.artifacts.question import ANSWERS, ASKED_ACTIVATIONS, ASKED_TOKENS
from loopscope.specs.artifacts.steering import ARMS
from loopscope.specs.payloads.question import QuestionMetrics, QuestionPayload, SteeredWork
from loopscope.specs.payloads.steering import SIDES
from loopscope.specs.shown_latents import ShownLatent
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.encoding import EncodedText, encoded_texts
from loopscope.worker.models import LoadedModel
from loopscope.worker.stages.capture.in_context import Beginnings
from loopscope.worker.stages.capture.stage import captured_shards
from loopscope.worker.stages.evidence.stage import has_spans, reader_of, token_texts, write_rows
from loopscope.worker.stages.steering.budget import norm_at
from loopscope.worker.stages.steering.cells import Cell, Row
from loopscope.worker.stages.steering.generating import generate_in_parts
from loopscope.worker.stages.steering.run import SteeringRun, prepare
from loopscope.worker.stages.tables import read_columns

TOKENS_MAX = 1_000
"""A question is answered while somebody waits."""
SHARDS = "question-"
UNSTEERED = Cell("none", 0.0)


def run(payload: QuestionPayload, context: StageContext, out: Path) -> QuestionMetrics:
    """Write the text's tokens with what fires on them, or how the text goes on.

    Raises TerminalFailure ``PromptTooLong``, ``ShapeMismatch``, what a capture of the text raises,
    and of an arm what its steering raises: ``NothingToSteer`` for one that it does not have.
    """
    model = context.model(payload["model"])
    chat = payload.get("chat")
    (encoded,) = encoded_texts(model, chat, [payload["text"]], spans=has_spans(model))
    _check_length(encoded, model)
    activations: list[tuple[object, ...]] = []
    answers: list[tuple[object, ...]] = []
    steered: Sequence[int] = ()
    if "steered" in payload:
        answers, steered = _gone_on(payload["steered"], context)
    else:
        activations = _activations(payload, encoded, model, context)
    _write_tokens(out, model, encoded, steered)
    write_rows(out, ASKED_ACTIVATIONS, activations)
    write_rows(out, ANSWERS, answers)
    return {
        "tokens": len(encoded.tokens) - 1,
        "firings": len(activations),
        "answers": len(answers),
    }


def _check_length(encoded: EncodedText, model: LoadedModel) -> None:
    limit = min(TOKENS_MAX, model.context_tokens_max or TOKENS_MAX)
    if len(encoded.tokens) > limit:
        raise TerminalFailure(
            "PromptTooLong",
            f"the text has {len(encoded.tokens)} tokens with BOS, above the {limit} that can be "
            "asked about; shorten it",
        )


def _write_tokens(
    out: Path, model: LoadedModel, encoded: EncodedText, steered: Sequence[int]
) -> None:
    words = token_texts(encoded) if has_spans(model) else [model.written(t) for t in encoded.tokens]
    places = range(1, len(encoded.tokens))
    write_rows(out, ASKED_TOKENS, [(at, words[at], at in steered) for at in places])


def _activations(
    payload: QuestionPayload, encoded: EncodedText, model: LoadedModel, context: StageContext
) -> list[tuple[object, ...]]:
    """Return side, latent, place and activation wherever a latent fires, latent after latent."""
    latents, dictionaries = payload["latents"], payload["dictionaries"]
    for side in SIDES:
        known = len(context.dictionary(dictionaries[side]).w_dec)
        if max(latents[side], default=0) >= known:
            raise TerminalFailure(
                "ShapeMismatch",
                f"spec.latents.{side} names latent {max(latents[side])}; that dictionary has "
                f"{known} latents, from 0",
            )
    tokens = [encoded.tokens]
    (shard,) = captured_shards(model, payload["hook"], tokens, ["the text"], context, prefix=SHARDS)
    vectors = load_file(shard)["00000000"]
    beginnings = Beginnings(model, payload["hook"])
    rows: list[tuple[object, ...]] = []
    for side in SIDES:
        asked = [ShownLatent(side, latent, "candidate") for latent in latents[side]]
        reader = reader_of(dictionaries[side], side, asked, context)
        if reader is None:
            continue
        read = reader.in_texts([vectors], encoded.tokens[:1], beginnings, context)
        for number, found in sorted(read.items()):
            rows += [
                (side, asked[number].latent, place + 1, found[place]) for place in _firing(found)
            ]
    return rows


def _firing(found: NDArray[np.float32]) -> list[int]:
    return [int(place) for place in np.flatnonzero(found > 0)]


def _gone_on(
    asked: SteeredWork, context: StageContext
) -> tuple[list[tuple[object, ...]], list[int]]:
    """Return the answers, unsteered and steered, and the steered places of the text."""
    run = prepare(asked["work"], context)
    cell = _cell(asked, run, context)
    cells = list(dict.fromkeys((UNSTEERED, cell)))
    rows = [Row(0, 0, number) for number in range(len(cells))]
    total = len(rows) * run.payload["maxNewTokens"]
    found = run.kept("answers.json", lambda: generate_in_parts(run, cells, rows, None, 0, total))
    answers: list[tuple[object, ...]] = [
        (
            one.arm,
            one.strength,
            one.norm,
            run.model.continuation(run.tokens_before(0, one.arm), made["tokens"]),
            made["tokens"],
            made["after_steered"],
        )
        for one, made in zip(cells, found, strict=True)
    ]
    return answers, run.steered[0] if run.steers(cell) else []


def _cell(asked: SteeredWork, run: SteeringRun, context: StageContext) -> Cell:
    """Return the arm at the norm that its strength means. Raises NothingToSteer."""
    arm, strength = asked["asked"]["arm"], asked["asked"]["strength"]
    if arm == UNSTEERED.arm:
        return UNSTEERED
    if arm in run.prompted:
        return Cell(arm, 0.0)
    known = read_columns(context.artifact("steering", asked["answered"]["digest"]) / ARMS.name)
    if arm not in run.arms.vectors:
        why = run.arms.missing.get(arm)
        names = ", ".join(dict.fromkeys(str(name) for name in known["arm"]))
        raise TerminalFailure(
            "NothingToSteer", f"there is no arm {arm!r}: {why or f'the steering has {names}'}"
        )
    of_arm = known["arm"] == arm
    same = of_arm & np.isclose(known["strength"], strength, rtol=1e-9, atol=0.0)
    if same.any():
        return Cell(arm, strength, float(known["norm"][same][0]))
    norm = norm_at(run, strength)
    if norm is None:
        there = ", ".join(f"{one:g}" for one in sorted(known["strength"][of_arm].tolist()))
        raise TerminalFailure(
            "NothingToSteer",
            f"{arm} was not steered at {strength:g} {run.payload['strengthUnit']}, and how long "
            f"its vector is there was not measured; its strengths are {there or 'none'}",
        )
    return Cell(arm, strength, norm)
