"""The sections of mapping and gate: the gate's answer, the pairs and their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from loopscope.reports.page.figures.graph import GraphAnchor, decomposition_graph
from loopscope.reports.page.figures.mapping import (
    NOT_KEPT,
    cosine_histogram,
    heatmap,
    pair_scatter,
)
from loopscope.reports.page.figures.tree import tree
from loopscope.reports.page.sections.cells import ANCHORS_MAX, cells
from loopscope.reports.page.sections.missing import Missing
from loopscope.reports.page.story import NamedControl, controls, share_sentence
from loopscope.specs.artifacts.gate import Directions, Gate, SelectionPower
from loopscope.specs.artifacts.mapping import (
    COARSE_SUMMARY,
    COSINE_HISTOGRAM,
    DIRECTIONS,
    GATE,
    GATE_DRAWS,
    PAIRS,
)
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.gate_sensitivity import GateRange, gate_by_min_subfeatures, steering_note

HISTOGRAMS_MAX = 6
PAIRS_SHOWN_MAX = 60


@dataclass(frozen=True)
class Figures:
    """The pictures of a mapping; ``histograms`` by anchor.

    ``is_complete``: the heatmap of cosines has all cells, not only those of kept pairs.
    """

    cosine_heatmap: Markup
    correlation_heatmap: Markup
    tree: Markup | None
    is_complete: bool
    histograms: list[tuple[int, Markup]]
    graph: Markup
    scatter: Markup
    anchors_hidden: int
    histograms_hidden: int


@dataclass(frozen=True)
class MappingSection:
    """A mapping with its gate; ``figures`` is None where no pair was kept.

    ``pairs`` have the columns of ``pairs.parquet``; older gates did not record their ``power``.
    """

    stage: StageView
    gate: Gate
    power: SelectionPower | None
    controls: list[NamedControl]
    gate_policy: str
    share_sentence: str
    rules: Mapping[str, Any]
    readings: Mapping[str, int]
    pairs: list[dict[str, object]]
    pairs_hidden: int
    figures: Figures | None
    directions: Directions
    by_count: list[tuple[GateRange, str]]
    """The gate by other values of ``minSubfeatures``; why this run's steering is another, or ""."""


def mapping(view: ExperimentView) -> MappingSection | Missing:
    """Return the gate, the pairs and the pictures of the mapping."""
    stage = view.stage("mapping")
    if not stage.available:
        return Missing(stage)
    gate, policy = stage.document(GATE), stage.spec["gate"]["policy"]
    pairs = stage.table(PAIRS)
    return MappingSection(
        stage=stage,
        gate=gate,
        power=gate.get("selection"),
        controls=controls(gate),
        gate_policy=policy,
        share_sentence=share_sentence(gate),
        rules=stage.spec,
        readings=stage.metrics.get("readings", {}),
        pairs=pairs.head(PAIRS_SHOWN_MAX).to_dict("records"),
        pairs_hidden=max(0, len(pairs) - PAIRS_SHOWN_MAX),
        figures=_figures(view, gate) if len(pairs) else None,
        directions=stage.document(DIRECTIONS),
        by_count=[
            (one, steering_note(one, gate, policy))
            for one in gate_by_min_subfeatures(gate, stage.table(GATE_DRAWS))
        ],
    )


def _figures(view: ExperimentView, gate: Gate) -> Figures:
    stage = view.stage("mapping")
    pairs, rules = stage.table(PAIRS), stage.spec
    histogram = stage.table(COSINE_HISTOGRAM)
    summary = stage.table(COARSE_SUMMARY).set_index("coarse")
    order = [entry["coarse"] for entry in gate["anchors"]]
    drawn = cells(view, order)
    return Figures(
        cosine_heatmap=heatmap(drawn.anchors, drawn.fine, drawn.cosine, "decoder cosine", NOT_KEPT),
        correlation_heatmap=heatmap(
            drawn.anchors, drawn.fine, drawn.correlation, "activation correlation", "not observed"
        ),
        tree=tree(drawn.fine, drawn.joins),
        is_complete=drawn.is_complete,
        histograms=[
            (
                coarse,
                cosine_histogram(
                    histogram[histogram["coarse"] == coarse],
                    coarse,
                    rules["minCosine"],
                    int(summary.loc[coarse, "children_cosine_rule"]),
                ),
            )
            for coarse in order[:HISTOGRAMS_MAX]
        ],
        graph=decomposition_graph(_graph_anchors(stage, gate)),
        scatter=pair_scatter(pairs, rules, gate["empty_corner_count"]),
        anchors_hidden=max(0, len(order) - ANCHORS_MAX),
        histograms_hidden=max(0, len(order) - HISTOGRAMS_MAX),
    )


def _graph_anchors(stage: StageView, gate: Gate) -> list[GraphAnchor]:
    pairs = stage.table(PAIRS)
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
        for entry in gate["anchors"][:ANCHORS_MAX]
    ]
