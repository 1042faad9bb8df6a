"""Stage *steering*: generate under each arm and strength, score, and reach a verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from numerics.capture import HookNeverFired, NotFinite
from numerics.sampling import SamplingRule, uniforms
from numerics.scores import continuation_nll, next_token_kl
from numerics.steering import generate
from state.failures import TerminalFailure
from worker.context import StageContext
from worker.models import LoadedModel
from worker.stages.steering_cells import (
    Arms,
    Cell,
    Row,
    build_arms,
    plan_rows,
    strength_scale,
)
from worker.stages.steering_tables import Scored, write_results

ROWS_PER_BATCH_MAX = 256
"""Rows decoded together. A step of a 262,144-word model is one to three seconds on two cores;
fewer rows make the unembedding slower per row (40 against 55 GFLOP/s at 125 and 250 rows)."""
CELLS_PER_PASS_MAX = 64
"""Cells whose divergence is computed in one pass over a text."""


@dataclass(frozen=True)
class _Job:
    """One steering run: what to generate, with what, and where pieces of it are kept."""

    payload: dict[str, Any]
    context: StageContext
    model: LoadedModel
    arms: Arms
    cells: list[Cell]
    vectors: torch.Tensor
    """Added to the residual stream, [cells, d_model], on the device."""
    openings: list[list[int]]

    def kept(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return the JSON shard ``name``, computing and sealing it if it is not there."""
        path = self.context.shards.sealed(name)
        if path is None:
            try:
                text = json.dumps(compute(), allow_nan=False)
            except HookNeverFired as error:
                raise TerminalFailure("HookNeverFired", str(error)) from error
            except NotFinite as error:
                raise TerminalFailure("NotFinite", str(error)) from error
            path = self.context.shards.seal(name, lambda part: _write_text(part, text))
        return json.loads(path.read_text())


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def run(payload: dict[str, Any], context: StageContext, out: Path) -> dict[str, Any]:
    """Write samples, scores, the table of arms and the verdict; return the status numbers.

    Raises TerminalFailure ``NothingToSteer``, ``HookNeverFired``, ``NotFinite``, ``EmptyText``.
    """
    job = _prepare(payload, context)
    generated = _generate_all(job)
    nll = _score_fluency(job, generated)
    divergence = _score_divergence(job)
    scored = Scored(
        payload=payload,
        cells=job.cells,
        rows=sorted(generated, key=lambda row: (row.opening, row.cell, row.sample)),
        tokens=generated,
        texts={
            row: job.model.continuation(job.openings[row.opening], tokens)
            for row, tokens in generated.items()
        },
        nll=nll,
        divergence=divergence,
        arm_cosines=job.arms.cosines(),
        missing=job.arms.missing,
    )
    return write_results(scored, out)


def _prepare(payload: dict[str, Any], context: StageContext) -> _Job:
    model = context.model(payload["model"])
    mapping = context.artifact("mapping", payload["mapping"]["digest"])
    capture = context.artifact("capture", payload["capture"]["digest"])
    arms = build_arms(payload, mapping, model.d_model)
    cells = arms.cells(payload["arms"], payload["strengths"])
    if not cells:
        raise TerminalFailure(
            "NothingToSteer", f"no arm can be built ({'; '.join(arms.missing.values())})"
        )
    openings = [model.encode(opening["text"]) for opening in payload["openings"]]
    _check_lengths(model, payload, openings)
    vectors = arms.added(cells, strength_scale(payload, capture)).to(context.device)
    return _Job(payload, context, model, arms, cells, vectors, openings)


def _check_lengths(model: LoadedModel, payload: dict[str, Any], openings: list[list[int]]) -> None:
    limit = model.context_tokens_max
    for opening, tokens in zip(payload["openings"], openings, strict=True):
        if limit is not None and len(tokens) + payload["maxNewTokens"] > limit:
            raise TerminalFailure(
                "PromptTooLong",
                f"opening {opening['id']} has {len(tokens)} tokens; with maxNewTokens it exceeds "
                f"the model's {limit}",
            )


def _generate_all(job: _Job) -> dict[Row, list[int]]:
    """Return the tokens of every row; one sealed shard per batch."""
    lengths = [len(tokens) for tokens in job.openings]
    batches = plan_rows(
        lengths, job.payload["samplesPerPrompt"], len(job.cells), ROWS_PER_BATCH_MAX
    )
    steps = job.payload["maxNewTokens"]
    total = steps * sum(len(batch) for batch in batches)
    generated: dict[Row, list[int]] = {}
    done = 0
    job.context.progress("Generating", done, total, "tokens")
    for number, batch in enumerate(batches):
        found = job.kept(
            f"generation-{number:05d}.json",
            partial(_generate_batch, job, batch, done, total),
        )
        generated |= dict(zip(batch, found, strict=True))
        done += steps * len(batch)
        job.context.progress("Generating", done, total, "tokens")
    return generated


def _generate_batch(job: _Job, batch: list[Row], done: int, total: int) -> list[list[int]]:
    rules, steps = job.payload["sampling"], job.payload["maxNewTokens"]
    ids = [opening["id"] for opening in job.payload["openings"]]
    draws = np.stack([uniforms(rules["seed"], ids[r.opening], r.sample, steps) for r in batch])

    def on_step(step: int) -> None:
        job.context.progress("Generating", done + step * len(batch), total, "tokens")

    return generate(
        job.model.causal,
        job.model.place(job.payload["hook"]),
        [job.openings[row.opening] for row in batch],
        job.vectors[[row.cell for row in batch]],
        torch.from_numpy(draws).to(job.context.device),
        SamplingRule(
            temperature=rules["temperature"],
            top_k=rules["topK"],
            top_p=rules["topP"],
            greedy=rules["greedy"],
        ),
        eos_tokens=job.model.eos_tokens,
        pad_token=job.model.pad_token,
        on_step=on_step,
    )


def _score_fluency(job: _Job, generated: dict[Row, list[int]]) -> dict[Row, float]:
    """Return each text's mean NLL under the unsteered model, NaN without tokens."""
    scores: dict[Row, float] = {}
    job.context.progress("ScoringFluency", 0, len(generated), "texts")
    for index, opening in enumerate(job.openings):
        rows = sorted(
            (row for row in generated if row.opening == index), key=lambda r: (r.sample, r.cell)
        )
        texts = [generated[row] for row in rows]

        def compute(opening: list[int] = opening, texts: list[list[int]] = texts) -> Any:
            device = job.context.device
            values = continuation_nll(
                job.model.causal, opening, texts, job.model.pad_token, device
            ).tolist()
            return [value if text else None for value, text in zip(values, texts, strict=True)]

        found = job.kept(f"fluency-{index:05d}.json", compute)
        scores |= {
            row: float("nan") if value is None else value
            for row, value in zip(rows, found, strict=True)
        }
        job.context.progress("ScoringFluency", len(scores), len(generated), "texts")
    return scores


def _score_divergence(job: _Job) -> list[float]:
    """Return each cell's mean KL(clean ‖ steered) over the neutral text's tokens, in nats."""
    texts = [job.model.encode(text) for text in job.payload["neutralText"]]
    place = job.model.place(job.payload["hook"])
    moved = [i for i, cell in enumerate(job.cells) if cell.arm != "none"]
    totals, positions = np.zeros(len(job.cells)), 0
    job.context.progress("ScoringDivergence", 0, len(texts), "texts")
    for index, tokens in enumerate(texts):

        def compute(tokens: list[int] = tokens) -> list[float]:
            sums: list[float] = []
            for start in range(0, len(moved), CELLS_PER_PASS_MAX):
                cells = job.vectors[moved[start : start + CELLS_PER_PASS_MAX]]
                divergence = next_token_kl(job.model.causal, place, tokens, cells)
                sums.extend(divergence.sum(dim=1).tolist())
            return sums

        totals[moved] += job.kept(f"divergence-{index:05d}.json", compute)
        positions += len(tokens) - 1
        job.context.progress("ScoringDivergence", index + 1, len(texts), "texts")
    return [float(total / positions) for total in totals]
