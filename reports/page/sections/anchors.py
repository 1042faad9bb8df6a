"""The anchors section: the capture, the dictionaries on it, and the candidates of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loopscope.specs.artifacts.capture import NORMS, TOKENS, Norms, ShownPrompt
from loopscope.specs.artifacts.decomposition import FEATURES
from loopscope.specs.artifacts.mapping import GATE
from loopscope.specs.payloads.steering import Side
from loopscope.specs.rules import Selection
from loopscope.specs.spec_json import PositionsJson, SelectionJson
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.numbers import NOT_RECORDED, count, percent


@dataclass(frozen=True)
class Capture:
    """The capture's numbers, and each dictionary with its active latents near the edge.

    ``place`` says where the norms were measured, if that is not the hook.
    """

    stage: StageView
    norms: Norms | None
    sides: list[tuple[StageView, str]]
    place: str
    positions: str
    aggregation: str
    shown: list[ShownPrompt]


@dataclass(frozen=True)
class Candidates:
    """The candidates of one decomposition with their statistics, best first.

    ``rows`` have the columns of ``features.parquet``. ``cautions`` are the evidence of hard
    negatives against a latent, ``confirmed`` which anchors passed again on test prompts; ``hard``
    is whether there were hard negatives.
    """

    stage: StageView
    selection: SelectionJson | None = None
    rows: list[dict[str, float]] = field(default_factory=list)
    cautions: dict[int, str] = field(default_factory=dict)
    confirmed: dict[int, bool] = field(default_factory=dict)
    hard: bool = False


def capture(view: ExperimentView) -> Capture:
    """Return the capture's numbers, the dictionaries' numbers and the norms."""
    stage, both = view.stage("capture"), (view.stage("coarse"), view.stage("fine"))
    return Capture(
        stage,
        stage.document(NORMS) if stage.available else None,
        [(side, _near_edge(side.metrics)) for side in both],
        " at the write hook" if "writeHook" in view.experiment.spec else "",
        _words(view.experiment.spec["positions"]),
        view.experiment.spec["aggregation"],
        _shown(stage),
    )


def _words(positions: PositionsJson) -> str:
    if isinstance(positions, str):
        return positions
    return ", ".join(f"{name} {value!r}" for name, value in positions.items())


def _shown(stage: StageView) -> list[ShownPrompt]:
    """Return a few prompts token by token; none of a capture that wrote no such file."""
    if not stage.available or stage.artifact is None or TOKENS.name not in stage.artifact.files:
        return []
    return stage.document(TOKENS)["prompts"]


def candidates(view: ExperimentView, side: Side) -> Candidates:
    """Return the candidates of one decomposition."""
    stage = view.stage(side)
    if not stage.available:
        return Candidates(stage)
    features = stage.table(FEATURES).set_index("latent", drop=False)
    rows = features.loc[view.candidates(side)].to_dict("records")
    selection = Selection.model_validate(stage.spec["selection"])
    found = {row["latent"]: selection.caution(row) for row in rows}
    return Candidates(
        stage,
        stage.spec["selection"],
        rows,
        {latent: caution for latent, caution in found.items() if caution},
        _confirmed(view) if side == "coarse" else {},
        "selectivity_hard_negative" in features,
    )


def _near_edge(metrics: Mapping[str, Any]) -> str:
    """Return how many active latents lie within rounding of the edge, if that was recorded."""
    if "near_edge" not in metrics:
        return NOT_RECORDED
    near, active = metrics["near_edge"], metrics["active"]
    return f"{count(near)} of {count(active)} ({percent(near / active if active else 0, 2)})"


def _confirmed(view: ExperimentView) -> dict[int, bool]:
    """Return which anchors passed again on the test prompts; empty where nothing was tested."""
    stage = view.stage("mapping")
    if not stage.available:
        return {}
    gate = stage.document(GATE)
    answers = {entry["coarse"]: entry.get("confirmed") for entry in gate["anchors"]}
    return {coarse: passed for coarse, passed in answers.items() if passed is not None}
