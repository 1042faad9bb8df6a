"""Looks at a steering while it generates: block after block, until a word may be said.

Whether it goes on depends on the spec and the texts of the blocks before alone, so a run that was
stopped and taken up again ends after the same block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from loopscope.numerics.verdict.decision import VerdictRules
from loopscope.numerics.verdict.looks import look
from loopscope.specs.stopping import blocks_of
from loopscope.worker.stages.steering.budget import Chosen
from loopscope.worker.stages.steering.cells import GeneratedText, Row
from loopscope.worker.stages.steering.generating import texts_by_block
from loopscope.worker.stages.steering.neutral import NeutralScores
from loopscope.worker.stages.steering.outcomes.lexicon import word_outcomes
from loopscope.worker.stages.steering.outcomes.probing import FittedProbe, described
from loopscope.worker.stages.steering.outcomes.rereading import outcomes_of
from loopscope.worker.stages.steering.run import SteeringRun
from loopscope.worker.stages.steering.scored import Scored


def steered_texts(
    run: SteeringRun, chosen: Chosen, probe: FittedProbe
) -> tuple[SteeringRun, dict[Row, GeneratedText]]:
    """Return the run of the openings that were steered, and what every row of it generated."""
    rule, seed = run.payload.get("stopEarly"), run.payload["sampling"]["seed"]
    blocks = blocks_of(run.payload["openings"], rule, seed)
    generated: dict[Row, GeneratedText] = {}
    kept: list[int] = []
    found = run, generated
    texts = texts_by_block(run, chosen.cells, probe, blocks)
    for block, own in zip(blocks, texts, strict=True):
        generated |= own
        kept = sorted([*kept, *block])
        found = run.only(kept), _numbered_anew(generated, kept)
        if rule is not None and is_decided(*found, chosen, probe):
            break
    return found


def is_decided(
    run: SteeringRun,
    generated: Mapping[Row, GeneratedText],
    chosen: Chosen,
    probe: FittedProbe,
) -> bool:
    """Return whether a look at these openings says a word."""
    scored = read_once(run, chosen, generated, probe)
    scored = replace(scored, outcomes={**word_outcomes(scored), **scored.outcomes})
    rules = VerdictRules(run.payload["minDifference"], run.payload["maxArmCosine"])
    cosines, missing = scored.arm_cosines, scored.missing
    return look(scored.by_cell(), len(run.openings), cosines, missing, rules).decides


def read_once(
    run: SteeringRun,
    chosen: Chosen,
    generated: Mapping[Row, GeneratedText],
    probe: FittedProbe,
) -> Scored:
    """Return a run's texts before anything was measured of fixed texts and next tokens."""
    texts = range(len(run.payload["neutralText"]))
    return Scored(
        payload=run.payload,
        cells=chosen.cells,
        rows=sorted(generated, key=lambda row: (row.opening, row.cell, row.sample)),
        generated=dict(generated),
        texts={
            row: run.model.continuation(run.openings[row.opening], found["tokens"])
            for row, found in generated.items()
        },
        outcomes=outcomes_of(dict(generated)),
        probe=described(probe),
        anchor=run.arms.anchor,
        neutral_order=list(texts),
        budget=chosen.budget,
        neutral=NeutralScores(np.zeros((len(chosen.cells), len(texts))), {}),
        shifts=[],
        special_tokens=run.model.special_tokens - run.model.eos_tokens,
        arm_cosines=run.arms.cosines(),
        missing={**run.arms.missing, **chosen.missing},
        declared=run.declared,
    )


def _numbered_anew(
    generated: Mapping[Row, GeneratedText], kept: list[int]
) -> dict[Row, GeneratedText]:
    """Return the rows with the places that their openings have among the kept ones."""
    place = {opening: number for number, opening in enumerate(kept)}
    return {replace(row, opening=place[row.opening]): found for row, found in generated.items()}
