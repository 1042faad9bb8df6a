"""The sections of mapping and gate: the gate's answer, the pairs and their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from loopscope.reports.page.figures.graph import GraphAnchor, decomposition_graph
from loopscope.reports.page.figures.mapping import cosine_histogram, heatmap, pair_scatter
from loopscope.reports.page.sections.missing import Missing
from loopscope.reports.page.story import NamedControl, controls, share_sentence
from loopscope.specs.artifacts.gate import Directions, Gate, SelectionPower
from loopscope.specs.artifacts.mapping import (
    COARSE_SUMMARY,
    COSINE_HISTOGRAM,
    DIRECTIONS,
    GATE,
    PAIRS,
)
from loopscope.views.experiment import ExperimentView, StageView

HISTOGRAMS_MAX = 6
PAIRS_SHOWN_MAX = 60
ANCHORS_DRAWN_MAX = 8


@dataclass(frozen=True)
class Figures:
    """The pictures of a mapping; ``histograms`` by anchor."""

    cosine_heatmap: Markup
    correlation_heatmap: Markup
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


def mapping(view: ExperimentView) -> MappingSection | Missing:
    """Return the gate, the pairs and the pictures of the mapping."""
    stage = view.stage("mapping")
    if not stage.available:
        return Missing(stage)
    gate = stage.document(GATE)
    pairs = stage.table(PAIRS)
    return MappingSection(
        stage=stage,
        gate=gate,
        power=gate.get("selection"),
        controls=controls(gate),
        gate_policy=stage.spec["gate"]["policy"],
        share_sentence=share_sentence(gate),
        rules=stage.spec,
        readings=stage.metrics.get("readings", {}),
        pairs=pairs.head(PAIRS_SHOWN_MAX).to_dict("records"),
        pairs_hidden=max(0, len(pairs) - PAIRS_SHOWN_MAX),
        figures=_figures(stage, gate) if len(pairs) else None,
        directions=stage.document(DIRECTIONS),
    )


def _figures(stage: StageView, gate: Gate) -> Figures:
    pairs, rules = stage.table(PAIRS), stage.spec
    histogram = stage.table(COSINE_HISTOGRAM)
    summary = stage.table(COARSE_SUMMARY).set_index("coarse")
    order = [entry["coarse"] for entry in gate["anchors"]]
    drawn = pairs[pairs["coarse"].isin(order[:ANCHORS_DRAWN_MAX])]
    return Figures(
        cosine_heatmap=heatmap(drawn, "cosine", "decoder cosine"),
        correlation_heatmap=heatmap(drawn, "correlation", "activation correlation"),
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
        anchors_hidden=max(0, len(order) - ANCHORS_DRAWN_MAX),
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
        for entry in gate["anchors"][:ANCHORS_DRAWN_MAX]
    ]
