"""Stage *drift*: how fast an anchoring fades over neutral text, and what temperature adds to it.

Every text is fixed but the samples. The anchored and the unanchored one differ in nothing but the
anchor: as many tokens in front, the same filler, the same opening at the same positions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loopscope.numerics.model.packing import packed_layers
from loopscope.specs.artifacts.drift import DRIFT, Drift, DriftOutcome
from loopscope.specs.payloads.drift import DriftMetrics, DriftNumber, DriftPayload
from loopscope.worker.concept_tokens import concept_tokens
from loopscope.worker.context import StageContext
from loopscope.worker.stages.drift.distances import OverDistances
from loopscope.worker.stages.drift.results import (
    Curves,
    outcomes_of,
    write_curves,
    write_points,
    write_samples,
)
from loopscope.worker.stages.drift.sampling import ByTemperature
from loopscope.worker.stages.drift.texts import anchoring_cell, drift_texts
from loopscope.worker.stages.steering.cells import Cell
from loopscope.worker.stages.steering.run import SteeringRun, prepare
from loopscope.worker.stages.tables import write_document


def run(payload: DriftPayload, context: StageContext, out: Path) -> DriftMetrics:
    """Write points, curves, samples and the grid; return the status numbers.

    Raises TerminalFailure ``NothingToSteer``, ``PromptTooLong``, ``NoConceptToken``,
    ``HookNeverFired``, ``NotFinite``, and what ``prepare`` raises.
    """
    run = prepare(payload["work"], context)
    cell = anchoring_cell(payload, context)
    with packed_layers(run.model.causal.blocks):
        return _run(run, payload, cell, out)


def _run(run: SteeringRun, payload: DriftPayload, cell: Cell, out: Path) -> DriftMetrics:
    rules, texts = payload["rules"], drift_texts(run, payload)
    concept = concept_tokens(run.model, run.payload["lexicon"])
    distances, anchors = tuple(rules["distances"]), tuple(payload["anchors"])
    points = OverDistances(run, texts, cell, distances, concept, anchors).points()
    samples = ByTemperature(run, texts, cell, rules, concept, anchors).samples()
    openings = run.payload["openings"]
    ids = [opening["id"] for opening in openings]
    curves = Curves(points, distances, len(ids))
    outcomes = outcomes_of(curves)
    write_points(out, points, ids)
    write_curves(out, curves)
    groups = np.array([opening.get("group", n) for n, opening in enumerate(openings)])
    write_samples(out, samples, ids, groups)
    document: Drift = {
        "arm": cell.arm,
        "strength": cell.strength,
        "norm": cell.norm,
        "distances": list(distances),
        "fillers": len(texts.fillers),
        "filler_tokens": distances[-1],
        "openings": len(ids),
        "anchor_tokens": len(texts.placebo),
        "concept_tokens": [run.model.written(token) for token in concept],
        "temperatures": list(rules["temperatures"]),
        "outcomes": outcomes,
    }
    write_document(out, DRIFT, document)
    return {
        "arm": cell.arm,
        "strength": cell.strength,
        "openings": len(ids),
        "fillers": len(texts.fillers),
        "tokens": distances[-1],
        "concept_tokens": len(concept),
        "anchors": {one["anchor"]: _number(one) for one in outcomes if one["outcome"] == "kl"},
    }


def _number(outcome: DriftOutcome) -> DriftNumber:
    return {
        "near": outcome["near"],
        "far": outcome["far"],
        "half_life": outcome["half_life"],
        "half_life_low": outcome["half_life_low"],
        "half_life_high": outcome["half_life_high"],
        "fade": outcome["fade"],
        "p": outcome["p_holm"],
    }
