"""Stage *steering*: generate under each arm and strength, score, and reach a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loopscope.numerics.model.batching import in_parts
from loopscope.numerics.model.capture import NotFinite
from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.statistics.sampling import uniforms
from loopscope.numerics.steering.generation import drawn_again, generate
from loopscope.specs.payloads.references import Preflights
from loopscope.specs.payloads.steering import SteeringMetrics, SteeringPayload
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.preflights import Preflight, require
from loopscope.worker.stages.steering.budget import Chosen, choose_cells
from loopscope.worker.stages.steering.cells import Cell, Row, plan_rows
from loopscope.worker.stages.steering.neutral import NeutralScores, NeutralTexts
from loopscope.worker.stages.steering.outcomes.measures import measured
from loopscope.worker.stages.steering.outcomes.rereading import read_outcomes
from loopscope.worker.stages.steering.run import SteeringRun, not_finite, prepare
from loopscope.worker.stages.steering.scored import Scored
from loopscope.worker.stages.steering.shift import distribution_shifts
from loopscope.worker.stages.steering.tables import write_results

ROWS_PER_BATCH_MAX = 256
"""Rows decoded together. A step of a 262,144-word model is one to three seconds on two cores;
fewer rows make the unembedding slower per row (40 against 55 GFLOP/s at 125 and 250 rows)."""
REPLAY_SHARE = 0.05
"""Rows that are generated twice to see that they can be."""
REPLAY_DIFFERING_MAX = 0.05
"""Share of replayed rows that may differ (at least one row): float32 sums depend in their last
digits on the shape of the batch, and now and then a draw lies that close to a boundary."""


def run(payload: SteeringPayload, context: StageContext, out: Path) -> SteeringMetrics:
    """Write samples, scores, the table of arms and the verdict; return the status numbers.

    Raises TerminalFailure ``NothingToSteer``, ``HookNeverFired``, ``NotFinite``, ``EmptyText``.
    """
    run = prepare(payload, context)
    texts = NeutralTexts(run)
    preflights = texts.check_carried_on()
    chosen = choose_cells(run, texts)
    cells = chosen.cells
    if not cells:
        why = _listed(chosen.missing)
        raise TerminalFailure("NothingToSteer", f"no arm can be steered ({why})")
    generated = _generate_all(run, cells)
    preflights |= replay_preflight(run, cells, generated)
    outcomes, probe = read_outcomes(run, generated)
    reread = Scored(
        payload=payload,
        cells=cells,
        rows=sorted(generated, key=lambda row: (row.opening, row.cell, row.sample)),
        tokens=generated,
        texts={
            row: run.model.continuation(run.openings[row.opening], tokens)
            for row, tokens in generated.items()
        },
        outcomes=outcomes,
        probe=probe,
        anchor=run.arms.anchor,
        neutral_order=texts.order,
        budget=chosen.budget,
        neutral=_score_neutral_texts(run, texts, chosen),
        shifts=distribution_shifts(run, cells),
        special_tokens=run.model.special_tokens - run.model.eos_tokens,
        arm_cosines=run.arms.cosines(),
        missing={**run.arms.missing, **chosen.missing},
    )
    scored = replace(reread, outcomes={**measured(reread, run), **reread.outcomes})
    return {**write_results(scored, out), "preflights": preflights}


def _listed(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in reasons.items())


def _generate_all(run: SteeringRun, cells: list[Cell]) -> dict[Row, list[int]]:
    """Return the tokens of every row; one sealed shard per batch."""
    lengths = [len(tokens) for tokens in run.openings]
    batches = plan_rows(lengths, run.payload["samplesPerPrompt"], len(cells), ROWS_PER_BATCH_MAX)
    steps = run.payload["maxNewTokens"]
    total = steps * sum(len(batch) for batch in batches)
    generated: dict[Row, list[int]] = {}
    done = 0
    run.context.progress("Generating", done, total, "tokens")
    for number, batch in enumerate(batches):
        found = run.kept(
            f"generation-{number:05d}.json",
            partial(_generate_in_parts, run, cells, batch, done, total),
        )
        generated |= dict(zip(batch, found, strict=True))
        done += steps * len(batch)
        run.context.progress("Generating", done, total, "tokens")
    return generated


def replay_preflight(
    run: SteeringRun, cells: list[Cell], generated: dict[Row, list[int]]
) -> Preflights:
    """Draw every token of a share of the rows again, in another batch; return the difference.

    Which rows is a function of the seed. Raises TerminalFailure ``PreflightFailed`` when more of
    them differ than rounding at a boundary between two tokens can explain.
    """
    rows = sorted(generated, key=lambda row: (row.opening, row.sample, row.cell))
    size = min(ROWS_PER_BATCH_MAX, max(1, round(REPLAY_SHARE * len(rows))))
    drawn = keyed_generator("replay", run.payload["sampling"]["seed"]).permutation(len(rows))
    chosen = [rows[place] for place in sorted(drawn[:size])]
    again = run.kept("replay.json", partial(_drawn_again, run, cells, chosen, generated))
    differing = sum(
        not _is_same(run, generated[row], tokens) for row, tokens in zip(chosen, again, strict=True)
    )
    allowed = max(1.0, REPLAY_DIFFERING_MAX * size) / size if size > 1 else 0.0
    return require(
        [
            Preflight(
                f"share of {size} replayed rows that differ",
                differing / size,
                0.0,
                allowed,
                "report it: a text must not depend on what shares its batch",
            )
        ]
    )


def _is_same(run: SteeringRun, tokens: list[int], again: list[int]) -> bool:
    """Whether a row drew its tokens again, and after them what ended it early."""
    ended = len(tokens) < run.payload["maxNewTokens"]
    return again[: len(tokens)] == tokens and (not ended or again[-1] in run.model.eos_tokens)


def _drawn_again(
    run: SteeringRun, cells: list[Cell], rows: list[Row], generated: dict[Row, list[int]]
) -> list[list[int]]:
    found: list[list[int]] = []
    for part in in_parts(rows, run.context.batch_divisor):
        run.context.progress("Replaying", len(found), len(rows), "texts")
        try:
            found += drawn_again(
                run.model.causal,
                run.place,
                [run.tokens_before(row.opening, cells[row.cell].arm) for row in part],
                [generated[row] for row in part],
                run.intervention([cells[row.cell] for row in part]),
                _draws(run, part),
                run.sampling,
                pad_token=run.model.pad_token,
            )
        except NotFinite as error:
            raise not_finite(error, [cells[row.cell] for row in part]) from error
    return found


def _generate_in_parts(
    run: SteeringRun,
    cells: list[Cell],
    batch: list[Row],
    done: int,
    total: int,
) -> list[list[int]]:
    """Generate a batch, in two passes after memory ran out."""
    found: list[list[int]] = []
    for part in in_parts(batch, run.context.batch_divisor):
        before = done + run.payload["maxNewTokens"] * len(found)
        try:
            found += _generate_batch(run, cells, part, before, total)
        except NotFinite as error:
            raise not_finite(error, [cells[row.cell] for row in part]) from error
    return found


def _generate_batch(
    run: SteeringRun,
    cells: list[Cell],
    batch: Sequence[Row],
    done: int,
    total: int,
) -> list[list[int]]:
    def on_step(step: int) -> None:
        run.context.progress("Generating", done + step * len(batch), total, "tokens")

    return generate(
        run.model.causal,
        run.place,
        [run.tokens_before(row.opening, cells[row.cell].arm) for row in batch],
        run.intervention([cells[row.cell] for row in batch]),
        _draws(run, batch),
        run.sampling,
        eos_tokens=run.model.eos_tokens,
        pad_token=run.model.pad_token,
        on_step=on_step,
    )


def _draws(run: SteeringRun, rows: Sequence[Row]) -> Tensor:
    """Return the uniforms [rows, steps] of each row, the same for every arm."""
    seed, steps = run.payload["sampling"]["seed"], run.payload["maxNewTokens"]
    ids = [opening["id"] for opening in run.payload["openings"]]
    draws = np.stack([uniforms(seed, ids[r.opening], r.sample, steps) for r in rows])
    return torch.from_numpy(draws).to(run.context.device)


def _score_neutral_texts(run: SteeringRun, texts: NeutralTexts, chosen: Chosen) -> NeutralScores:
    """Return what each cell does to the neutral texts, without measuring a budget twice."""

    def report(done: int) -> None:
        run.context.progress("ScoringDivergence", done, len(texts), "texts")

    known = np.full((len(chosen.cells), len(texts)), np.nan)
    if chosen.budget is not None and run.payload["strengthUnit"] == "nextTokenKl":
        known = chosen.budget.copy()
    idle = [
        i for i, c in enumerate(chosen.cells) if not run.steers(c) and c.arm not in run.prefixes
    ]
    known[idle] = 0.0
    found = texts.scores(chosen.cells, known, report)
    report(len(texts))
    return found
