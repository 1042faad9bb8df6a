"""The report's sections as plain values for the template: one function a section."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from loopscope.reports.page import fairness
from loopscope.reports.page.figures.graph import GraphAnchor, decomposition_graph
from loopscope.reports.page.figures.mapping import cosine_histogram, heatmap, pair_scatter
from loopscope.reports.page.figures.steering import concept_against_kl
from loopscope.reports.page.provenance import resolved_inputs, spec_yaml, stage_provenance
from loopscope.reports.page.samples import samples_by_opening
from loopscope.reports.page.shift_table import shifts_by_opening
from loopscope.reports.page.story import (
    answers,
    assay_sentence,
    cautions,
    controls,
    model_facts,
    question,
    share_sentence,
)
from loopscope.specs.rules import Selection
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.numbers import (
    MINUS,
    MISSING,
    NOT_RECORDED,
    count,
    decimal,
    p_value,
    percent,
    signed,
    signed_interval,
)

HISTOGRAMS_MAX = 6
PAIRS_SHOWN_MAX = 60
ANCHORS_DRAWN_MAX = 8
OUTCOMES = (
    "probe",
    "target_latent",
    "sibling",
    "targetedness",
    "collateral_coarse",
    "collateral_fine",
    "fixed_text_change_coarse",
    "fixed_text_change_fine",
    "distinct_2",
)


def headline(view: ExperimentView) -> dict[str, Any]:
    """Return question, answers and cautions."""
    return {"question": question(view), "answers": answers(view), "cautions": cautions(view)}


def status(view: ExperimentView) -> list[dict[str, Any]]:
    """Return one row per object: the experiment, then its stages."""
    rows = [{"name": "experiment", "record": view.experiment, "problem": ""}]
    for stage in view.stages.values():
        rows.append({"name": stage.name, "record": stage.record, "problem": stage.problem})
    return [{**row, **_condition_facts(row["record"])} for row in rows]


def capture(view: ExperimentView) -> dict[str, Any]:
    """Return the capture's numbers, the dictionaries' numbers and the norms."""
    stage, both = view.stage("capture"), (view.stage("coarse"), view.stage("fine"))
    return {
        "stage": stage,
        "norms": stage.document("norms.json") if stage.available else {},
        "sides": [(side, _near_edge(side.metrics)) for side in both],
        "positions": view.experiment.spec["positions"],
        "aggregation": view.experiment.spec["aggregation"],
    }


def _near_edge(metrics: dict[str, Any]) -> str:
    """Return how many active latents lie within rounding of the edge; older artifacts say none."""
    if "near_edge" not in metrics:
        return NOT_RECORDED
    near, active = metrics["near_edge"], metrics["active"]
    return f"{count(near)} of {count(active)} ({percent(near / active if active else 0, 2)})"


def anchors(view: ExperimentView, side: Literal["coarse", "fine"]) -> dict[str, Any]:
    """Return the candidates of one decomposition with their statistics, best first."""
    stage = view.stage(side)
    if not stage.available:
        return {
            "stage": stage,
            "rows": [],
            "selection": {},
            "confirmed": {},
            "hard": False,
            "cautions": {},
        }
    features = stage.table("features.parquet").set_index("latent", drop=False)
    candidates = view.candidates(side)
    rows = features.loc[candidates].to_dict("records")
    selection = Selection.model_validate(stage.spec["selection"])
    found = {row["latent"]: selection.caution(row) for row in rows}
    return {
        "stage": stage,
        "rows": rows,
        "cautions": {latent: caution for latent, caution in found.items() if caution},
        "selection": stage.spec["selection"],
        "confirmed": _confirmed(view) if side == "coarse" else {},
        "hard": "selectivity_hard_negative" in features,
    }


def _confirmed(view: ExperimentView) -> dict[int, bool]:
    """Return which anchors passed again on the test prompts; empty where nothing was tested."""
    mapping_stage = view.stage("mapping")
    if not mapping_stage.available:
        return {}
    entries = mapping_stage.document("gate.json")["anchors"]
    return {e["coarse"]: e["confirmed"] for e in entries if e.get("confirmed") is not None}


def mapping(view: ExperimentView) -> dict[str, Any]:
    """Return the gate, the pairs and the pictures of the mapping."""
    stage = view.stage("mapping")
    if not stage.available:
        return {"stage": stage}
    gate = stage.document("gate.json")
    pairs = stage.table("pairs.parquet")
    rules = stage.spec
    return {
        "stage": stage,
        "gate": gate,
        "power": gate.get("selection"),
        "controls": controls(gate),
        "gate_policy": rules["gate"]["policy"],
        "share_sentence": share_sentence(gate),
        "rules": rules,
        "readings": stage.metrics.get("readings", {}),
        "pairs": pairs.head(PAIRS_SHOWN_MAX).to_dict("records"),
        "pairs_hidden": max(0, len(pairs) - PAIRS_SHOWN_MAX),
        "figures": _mapping_figures(stage) if len(pairs) else {},
        "directions": stage.document("directions.json"),
    }


def steering(view: ExperimentView) -> dict[str, Any]:
    """Return the arms' table, contrasts, picture and samples."""
    stage = view.stage("steering")
    if not stage.available:
        return {"stage": stage}
    arms = stage.table("arms.parquet")
    verdict = stage.document("verdict.json")
    openings, hidden = samples_by_opening(stage)
    shifts, shifts_hidden = shifts_by_opening(stage)
    return {
        "stage": stage,
        "rules": stage.spec,
        "arms": arms.to_dict("records"),
        "verdict": verdict,
        "assay": assay_sentence(verdict),
        "contrasts": _contrasts(verdict.get("contrasts") or []),
        "intact": _contrasts(verdict.get("intact") or []),
        "secondary": _contrasts(verdict.get("secondary") or []),
        "budgets": fairness.budget_errors(verdict),
        "budget_texts": (verdict.get("budget") or {}).get("texts"),
        "beside_prompt": fairness.beside_prompt(verdict),
        "placebo": fairness.placebo_sentence(verdict),
        "figure": concept_against_kl(arms),
        "outcomes": _outcomes(arms),
        "shifts": shifts,
        "shifts_hidden": shifts_hidden,
        "openings": openings,
        "samples_hidden": hidden,
        "unit": _strength_unit(view, stage),
        "clamps": stage.spec.get("method") == "clamp",
    }


def provenance(view: ExperimentView) -> dict[str, Any]:
    """Return inputs, artifacts and the spec."""
    return {
        "model": model_facts(view),
        "inputs": resolved_inputs(view),
        "stages": [stage_provenance(s) for s in view.stages.values() if s.artifact is not None],
        "spec": spec_yaml(view),
    }


_CONTRAST: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "outcome": ("outcome", lambda entry: str(entry["outcome"]).replace("_", " ")),
    "contrast": ("contrast", lambda entry: entry["contrast"].replace("-", f" {MINUS} ", 1)),
    "estimate": ("estimate", lambda entry: signed(entry["estimate"], 3)),
    "low": ("95 % interval", lambda entry: signed_interval(entry["low"], entry["high"], 3)),
    "n": ("n", lambda entry: count(entry["n"])),
    "p_holm": ("p (Holm)", lambda entry: p_value(entry["p_holm"])),
    "p_two_sided": ("p", lambda entry: p_value(entry["p_two_sided"])),
}


def _contrasts(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what of the contrasts fits a page, as columns and rows of text; verdict.json has all.

    A p that was corrected stands in place of the plain one.
    """
    given = {name for entry in entries for name in entry}
    shown = [name for name in _CONTRAST if name in given]
    if "p_holm" in shown and "p_two_sided" in shown:
        shown.remove("p_two_sided")
    rows = [
        [_CONTRAST[name][1](entry) if name in entry else MISSING for name in shown]
        for entry in entries
    ]
    return {"columns": [_CONTRAST[name][0] for name in shown], "rows": rows}


def _outcomes(arms: Any) -> dict[str, Any]:
    """Return the arms' further outcomes as columns and rows of text."""
    shown = ("arm", "strength", *(name for name in OUTCOMES if name in arms))
    rows = [[_cell(row[name]) for name in shown] for row in arms.to_dict("records")]
    return {"columns": [name.replace("_", " ") for name in shown], "rows": rows}


def _cell(value: Any) -> str:
    return decimal(value, 3) if value is None or isinstance(value, float) else str(value)


def _condition_facts(record: Any) -> dict[str, Any]:
    ready = record.status.condition("Ready") if record else None
    stale = record is not None and record.status.observed_generation != record.generation
    return {
        "ready": ready,
        "stale": stale,
        "failed": record is not None and record.stalled,
        "conditions": record.status.conditions if record else (),
    }


def _mapping_figures(stage: StageView) -> dict[str, Any]:
    pairs, gate = stage.table("pairs.parquet"), stage.document("gate.json")
    histogram = stage.table("cosine_histogram.parquet")
    summary = stage.table("coarse_summary.parquet").set_index("coarse")
    order = [entry["coarse"] for entry in gate["anchors"]]
    drawn = pairs[pairs["coarse"].isin(order[:ANCHORS_DRAWN_MAX])]
    return {
        "cosine_heatmap": heatmap(drawn, "cosine", "decoder cosine"),
        "correlation_heatmap": heatmap(drawn, "correlation", "activation correlation"),
        "histograms": [
            (
                coarse,
                cosine_histogram(
                    histogram[histogram["coarse"] == coarse],
                    coarse,
                    stage.spec["minCosine"],
                    int(summary.loc[coarse, "children_cosine_rule"]),
                ),
            )
            for coarse in order[:HISTOGRAMS_MAX]
        ],
        "graph": decomposition_graph(_graph_anchors(stage)),
        "scatter": pair_scatter(pairs, stage.spec, gate["empty_corner_count"]),
        "anchors_hidden": max(0, len(order) - ANCHORS_DRAWN_MAX),
        "histograms_hidden": max(0, len(order) - HISTOGRAMS_MAX),
    }


def _graph_anchors(stage: StageView) -> list[GraphAnchor]:
    pairs, gate = stage.table("pairs.parquet"), stage.document("gate.json")
    children = pairs[pairs["child"]]
    return [
        GraphAnchor(
            entry["coarse"],
            entry["selectivity"],
            entry["firing_rate_target"],
            len(entry["children"]) >= gate["minSubfeatures"],
            children[children["coarse"] == entry["coarse"]].sort_values(
                "cosine", ascending=False, kind="stable"
            ),
        )
        for entry in gate["anchors"][:ANCHORS_DRAWN_MAX]
    ]


def _strength_unit(view: ExperimentView, stage: StageView) -> dict[str, Any]:
    """Return the unit of the strengths in words, with its size where the capture is at hand."""
    unit = stage.spec["strengthUnit"]
    words, name = {
        "nextTokenKl": ("nats of next-token KL on neutral text", ""),
        "fluencyLoss": ("nats per token by which neutral text gets less likely", ""),
        "centredResidualNorm": ("median norm of (h minus mean h)", "median_centred_norm"),
        "residualNorm": ("median norm of h", "median_norm"),
        "absolute": ("1", ""),
    }[unit]
    capture_stage = view.stage("capture")
    norms = capture_stage.document("norms.json") if capture_stage.available else {}
    return {"name": unit, "words": words, "size": norms.get(name)}
