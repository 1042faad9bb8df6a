"""Texts of every row: generated batch by batch, and read again by the unsteered model at once.

What decoding saw below the hook is at hand then, and is kept no longer than a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from loopscope.numerics.model.batching import in_parts
from loopscope.numerics.model.capture import NotFinite
from loopscope.numerics.statistics.sampling import uniforms
from loopscope.numerics.steering.generation import generate
from loopscope.worker.stages.steering.cells import Cell, GeneratedText, Row, plan_rows
from loopscope.worker.stages.steering.outcomes.probing import FittedProbe
from loopscope.worker.stages.steering.outcomes.rereading import UNREAD, read_again, read_places
from loopscope.worker.stages.steering.run import SteeringRun, not_finite
from loopscope.worker.stages.steering.shift import state_text

ROWS_PER_BATCH_MAX = 256
"""Rows decoded together. A step of a 262,144-word model is one to three seconds on two cores;
fewer rows make the unembedding slower per row (40 against 55 GFLOP/s at 125 and 250 rows)."""


def texts_by_block(
    run: SteeringRun, cells: list[Cell], probe: FittedProbe, blocks: Sequence[Sequence[int]]
) -> Iterator[dict[Row, GeneratedText]]:
    """Yield after each block of openings what every row generated and what reading it found.

    A batch is a sealed shard, and lies within a block. What follows is generated when it is asked.
    """
    lengths = [len(tokens) for tokens in run.openings]
    samples = run.payload["samplesPerPrompt"]
    planned = [
        plan_rows(lengths, samples, len(cells), ROWS_PER_BATCH_MAX, block) for block in blocks
    ]
    each = _tokens_of_a_row(run, probe)
    total = each * sum(len(batch) for batches in planned for batch in batches)
    done, number = 0, 0
    run.context.progress("Generating", done, total, "tokens")
    for batches in planned:
        generated: dict[Row, GeneratedText] = {}
        for batch in batches:
            found = run.kept(
                f"generated-{number:05d}.json",
                partial(generate_in_parts, run, cells, batch, probe, done, total),
            )
            generated |= dict(zip(batch, found, strict=True))
            done, number = done + each * len(batch), number + 1
            run.context.progress("Generating", done, total, "tokens")
        yield generated


def _tokens_of_a_row(run: SteeringRun, probe: FittedProbe | None) -> int:
    """Return the tokens that a row counts in the progress: each is generated, and then read."""
    steps: int = run.payload["maxNewTokens"]
    return steps if probe is None else 2 * steps


def generate_in_parts(
    run: SteeringRun,
    cells: list[Cell],
    batch: list[Row],
    probe: FittedProbe | None,
    done: int,
    total: int,
) -> list[GeneratedText]:
    """Generate a batch, in two passes after memory ran out; without a probe no text is read again.

    ``done`` of ``total`` tokens were generated or read before. Raises TerminalFailure
    ``NotFinite``, and HookNeverFired.
    """
    found: list[GeneratedText] = []
    for part in in_parts(batch, run.context.batch_divisor):
        before = done + _tokens_of_a_row(run, probe) * len(found)
        try:
            found += _generate_batch(run, cells, part, probe, before, total)
        except NotFinite as error:
            raise not_finite(error, [cells[row.cell] for row in part]) from error
    return found


def _generate_batch(
    run: SteeringRun,
    cells: list[Cell],
    batch: Sequence[Row],
    probe: FittedProbe | None,
    done: int,
    total: int,
) -> list[GeneratedText]:
    steps = run.payload["maxNewTokens"]

    def on_step(step: int) -> None:
        run.context.progress("Generating", done + step * len(batch), total, "tokens")

    found = generate(
        run.model.causal,
        run.place,
        [run.tokens_before(row.opening, cells[row.cell].arm) for row in batch],
        run.intervention([cells[row.cell] for row in batch]),
        draws_of(run, batch),
        run.sampling,
        eos_tokens=run.model.eos_tokens,
        pad_token=run.model.pad_token,
        reach=run.reach([(row.opening, cells[row.cell]) for row in batch]),
        largest=run.largest_logits,
        keep=None if probe is None else read_places(run, probe),
        on_step=on_step,
    )
    outcomes = [UNREAD] * len(batch)
    if probe is not None:
        on_step(steps)  # in one phase with decoding, or its time left would begin at nothing
        outcomes = read_again(run, cells, batch, found, probe)
    return [
        {
            "tokens": found.tokens[number],
            "after_steered": found.after_steered[number],
            "opening_steered": found.opening_steered[number],
            "outcomes": outcomes[number],
            "after_opening": None if row.sample else state_text(found.after_opening[number]),
        }
        for number, row in enumerate(batch)
    ]


def draws_of(run: SteeringRun, rows: Sequence[Row]) -> Tensor:
    """Return the uniforms [rows, steps] of each row, the same for every arm."""
    seed, steps = run.payload["sampling"]["seed"], run.payload["maxNewTokens"]
    ids = [opening["id"] for opening in run.payload["openings"]]
    draws = np.stack([uniforms(seed, ids[r.opening], r.sample, steps) for r in rows])
    return torch.from_numpy(draws).to(run.context.device)
