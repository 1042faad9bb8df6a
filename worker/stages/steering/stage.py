"""Stage *steering*: generate under each arm and strength, score, and reach a verdict."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from loopscope.numerics.model.batching import in_parts
from loopscope.numerics.model.capture import NotFinite
from loopscope.numerics.model.packing import packed_layers
from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.steering.generation import drawn_again
from loopscope.specs.payloads.references import Preflights
from loopscope.specs.payloads.steering import SteeringMetrics, SteeringPayload
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.preflights import Preflight, require
from loopscope.worker.stages.steering.budget import Chosen, choose_cells
from loopscope.worker.stages.steering.cells import Cell, Row
from loopscope.worker.stages.steering.generating import (
    ROWS_PER_BATCH_MAX,
    draws_of,
)
from loopscope.worker.stages.steering.looking import read_once, steered_texts
from loopscope.worker.stages.steering.neutral import NeutralScores, NeutralTexts
from loopscope.worker.stages.steering.outcomes.measures import measured
from loopscope.worker.stages.steering.outcomes.probing import fitted_probe
from loopscope.worker.stages.steering.run import SteeringRun, not_finite, prepare
from loopscope.worker.stages.steering.shift import distribution_shifts
from loopscope.worker.stages.steering.tables import write_results

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
    with packed_layers(run.model.causal.blocks):
        return _run(run, out)


def _run(run: SteeringRun, out: Path) -> SteeringMetrics:
    texts = NeutralTexts(run)
    preflights = texts.check_carried_on()
    chosen = choose_cells(run, texts)
    cells = chosen.cells
    if not cells:
        why = _listed(chosen.missing)
        raise TerminalFailure("NothingToSteer", f"no arm can be steered ({why})")
    probe = fitted_probe(run)
    run, texts_of_rows = steered_texts(run, chosen, probe)
    generated = {row: found["tokens"] for row, found in texts_of_rows.items()}
    preflights |= replay_preflight(run, cells, generated)
    reread = read_once(run, chosen, texts_of_rows, probe)
    reread = replace(
        reread,
        neutral_order=texts.order,
        neutral=_score_neutral_texts(run, texts, chosen),
        shifts=distribution_shifts(run, cells, texts_of_rows),
    )
    scored = replace(reread, outcomes={**measured(reread, run), **reread.outcomes})
    return {**write_results(scored, out), "preflights": preflights}


def _listed(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in reasons.items())


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
                draws_of(run, part),
                run.sampling,
                pad_token=run.model.pad_token,
                reach=run.reach([(row.opening, cells[row.cell]) for row in part]),
            )
        except NotFinite as error:
            raise not_finite(error, [cells[row.cell] for row in part]) from error
    return found


def _score_neutral_texts(run: SteeringRun, texts: NeutralTexts, chosen: Chosen) -> NeutralScores:
    """Return what each cell does to the neutral texts, without measuring a budget twice."""

    def report(done: int) -> None:
        run.context.progress("ScoringDivergence", done, len(texts), "texts")

    known = np.full((len(chosen.cells), len(texts)), np.nan)
    if chosen.budget is not None and run.payload["strengthUnit"] == "nextTokenKl":
        known = chosen.budget.copy()
    idle = [
        i for i, c in enumerate(chosen.cells) if not run.steers(c) and c.arm not in run.prompted
    ]
    known[idle] = 0.0
    found = texts.scores(chosen.cells, known, report)
    report(len(texts))
    return found
