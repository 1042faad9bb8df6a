"""The script of the explorable page, its data, and the policy that lets this one script run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from loopscope.reports.page.policy import script
from loopscope.reports.page.rating_data import rating_data
from loopscope.reports.page.sections.gate_settings import GateSettings
from loopscope.reports.page.sections.latents import Latents
from loopscope.specs.artifacts.gate import Directions
from loopscope.specs.artifacts.mapping import DIRECTIONS, GATE, GATE_DRAWS, PAIRS
from loopscope.specs.json_values import Json
from loopscope.views.experiment import ExperimentView
from loopscope.views.gate_sensitivity import gate_by_min_subfeatures, steering_note
from loopscope.views.numbers import is_missing
from loopscope.views.sensitivity.min_difference import Range

SCRIPTS = ("elements.js", "parquet.js", "explore.js", "settings.js", "rating.js", "paths.js")
"""Files of ``script/`` that make the page's one script."""
PAIR_COLUMNS = (
    *("coarse", "fine", "cosine", "correlation", "correlation_within_target"),
    *("correlation_within_condition", "reading", "child"),
)


@dataclass(frozen=True)
class Exploring:
    """What the page of an experiment holds for its script; ``policy`` names the script's hash."""

    policy: str
    script: Markup
    data: Markup


def exploring(
    view: ExperimentView,
    latents: Latents,
    sensitivity: Sequence[Range],
    settings: GateSettings,
    paths: Json,
) -> Exploring:
    """Return script, data and policy. Equal views give equal bytes."""
    own = script(*SCRIPTS)
    data = {**_data(view, latents, sensitivity, settings), "paths": paths}
    return Exploring(own.policy, own.text, inline_json(data))


def inline_json(value: Json) -> Markup:
    """Return JSON that can stand in a page: no ``<`` ends or begins an element there."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)
    escaped = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup(escaped)


def _data(
    view: ExperimentView, latents: Latents, sensitivity: Sequence[Range], settings: GateSettings
) -> dict[str, Json]:
    mapping, steering = view.stage("mapping"), view.stage("steering")
    pairs: list[Json] = []
    if mapping.available:
        table = mapping.table(PAIRS)
        columns = [table[name].tolist() for name in PAIR_COLUMNS]
        pairs = [
            [None if is_missing(value) else value for value in row]
            for row in zip(*columns, strict=True)
        ]
    return {
        "name": view.name,
        "origin": _origin(view),
        "units": {column.name: column.unit for column in PAIRS.columns if column.unit},
        "latents": [[one.side, one.latent, one.role] for one in latents.shown],
        "pairColumns": list(PAIR_COLUMNS),
        "pairs": pairs,
        "both": [[coarse, fine, list(texts)] for coarse, fine, texts in latents.both],
        "arms": _arms(mapping.document(DIRECTIONS)) if mapping.available else {},
        "sensitivity": [
            {"low": one.low, "high": one.high, "verdict": one.verdict} for one in sensitivity
        ],
        "gateByCount": [] if settings.moved else _gate_by_count(view),
        "gateSettings": settings.data,
        "rating": rating_data(view),
        "declared": {
            "minDifference": steering.spec.get("minDifference"),
            "minSubfeatures": mapping.document(GATE)["minSubfeatures"]
            if mapping.available
            else None,
        },
    }


def _origin(view: ExperimentView) -> Json:
    """Return what a table that the page saves says of itself: the artifacts that it may be from."""
    digests: dict[str, Json] = {
        name: stage.artifact.digest
        for name, stage in view.stages.items()
        if stage.artifact is not None
    }
    return {
        "experiment": view.name,
        "namespace": view.experiment.key.namespace,
        "digests": digests,
    }


def _gate_by_count(view: ExperimentView) -> list[Json]:
    mapping = view.stage("mapping")
    if not mapping.available:
        return []
    gate = mapping.document(GATE)
    return [
        {
            "low": one.low,
            "high": one.high,
            "verdict": one.verdict,
            "note": steering_note(one, gate, mapping.spec["gate"]["policy"]),
        }
        for one in gate_by_min_subfeatures(gate, mapping.table(GATE_DRAWS))
    ]


def _arms(directions: Directions) -> dict[str, Json]:
    """Return the latents of which each arm is made; an arm without latents is not there."""
    anchor = directions["anchor"]
    coarse: list[Json] = [] if anchor is None else [f"latent=coarse/{anchor}"]
    fine: list[Json] = [f"latent=fine/{child}" for child in directions["children"]]
    return {"coarse": coarse, "fine": fine, "multi": [*coarse, *fine]}
