"""The tables of latents and of pairs: what follows in them from other columns."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas
from numpy.typing import NDArray

from loopscope.numerics.gate.rule import (
    ChildThresholds,
    SelectionThresholds,
    behaves_like_child,
    readings,
    selective_latents,
)
from loopscope.numerics.latents.features import SELECTIVITY_EPSILON, LatentStatistics
from loopscope.numerics.statistics.multiple_tests import benjamini_hochberg, holm
from loopscope.numerics.statistics.perfect import FIRING_PROMPTS_MIN
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.specs.artifacts.decomposition import CANDIDATE, PROMPTS, bundled_features
from loopscope.specs.artifacts.mapping import FEATURES_TEST, PAIRS
from loopscope.specs.rules import Selection
from loopscope.specs.spec_json import GateJson, MappingRulesJson, SelectionJson

SELECTIVITY = "latents: selectivity from the means"
FIRING = "latents: firing prompts from the rates"
Q = "latents: q from p (Benjamini-Hochberg)"
CANDIDATES = "latents: candidates by the declared selection"
CONFIRMED = "test prompts: p (Holm), and who passes again"
EDGES = "pairs: q, edge, reading and child by the declared rules"
SIDES: tuple[Literal["coarse", "fine"], ...] = ("coarse", "fine")
NO_ACTIVATIONS = "activations are not in a bundle, and making them again needs model and dictionary"


def check_latents(bundle: OpenBundle, findings: Findings) -> None:
    """Compute again what of latents and pairs follows from other columns."""
    for side in SIDES:
        with findings.part(CANDIDATES, bundled_features(side)):
            _check_features(bundle, side, findings)
    with findings.part(CONFIRMED, FEATURES_TEST.name):
        _check_test(bundle, findings)
    with findings.part(EDGES, PAIRS.name):
        _check_pairs(bundle, findings)
    findings.leave_out(
        "means, maxima, rates, Cohen's d, AUROC and p of latents; correlations, coverages and p of "
        "pairs",
        NO_ACTIVATIONS,
    )
    findings.leave_out("residuals and norms of the capture", "they need the model")
    findings.leave_out("cosines of decoder rows", "the dictionaries are not in a bundle")


def columns_of(table: pandas.DataFrame) -> dict[str, NDArray[Any]]:
    """Return the columns of a table as arrays."""
    return {str(name): table[name].to_numpy() for name in table.columns}


def thresholds_of(selection: SelectionJson) -> SelectionThresholds:
    """Return the limits of a declared selection."""
    return SelectionThresholds(
        selectivity_min=selection["minSelectivity"],
        firing_rate_target_min=selection["minFiringRateTarget"],
        firing_rate_neutral_max=selection["maxFiringRateNeutral"],
        q_max=selection["maxQ"],
    )


def candidates_of(bundle: OpenBundle, side: Literal["coarse", "fine"]) -> list[int]:
    """Return the candidates that the declared selection takes from a feature table, best first."""
    table = bundle.frame(bundled_features(side))
    assert table is not None, "the table is there"
    selection = Selection.model_validate(bundle.experiment["selection"])
    return selection.candidates({str(n): table[n].tolist() for n in table.columns})


def prompts_of(bundle: OpenBundle, split: str) -> tuple[int, int]:
    """Return how many target and neutral prompts a split has."""
    table = bundle.frame(f"{PROMPTS.bundled}/{PROMPTS.name}")
    if table is None:
        raise LookupError(f"{PROMPTS.name} is missing")
    own = table[table["split"] == split] if "split" in table else table
    return int((own["condition"] == "target").sum()), int((own["condition"] == "neutral").sum())


def _check_features(
    bundle: OpenBundle, side: Literal["coarse", "fine"], findings: Findings
) -> None:
    name = bundled_features(side)
    table = bundle.frame(name)
    if table is None:
        return
    columns = columns_of(table)
    _check_selectivity(name, columns, findings)
    target, neutral = prompts_of(bundle, "discover")
    firing = columns["firing_rate_target"] * target + columns["firing_rate_neutral"] * neutral
    findings.column(FIRING, f"{name} n_firing", columns["n_firing"], firing)
    tested = columns["n_firing"] >= FIRING_PROMPTS_MIN
    findings.column(Q, f"{name} tested", ~np.isnan(columns["p_value"]), tested)
    q = benjamini_hochberg(columns["p_value"])
    findings.column(Q, f"{name} q_value", columns["q_value"], q)
    marked = np.isin(columns["latent"], candidates_of(bundle, side))
    findings.column(CANDIDATES, f"{name} {CANDIDATE.name}", columns[CANDIDATE.name], marked)


def _check_selectivity(name: str, columns: dict[str, NDArray[Any]], findings: Findings) -> None:
    target = columns["mean_activation_target"]
    for column, other in (
        ("selectivity", "mean_activation_neutral"),
        ("selectivity_hard_negative", "mean_activation_hard_negative"),
    ):
        if column in columns:
            against = columns[other]
            found = (target - against) / (target + against + SELECTIVITY_EPSILON)
            findings.column(SELECTIVITY, f"{name} {column}", columns[column], found)


def _check_test(bundle: OpenBundle, findings: Findings) -> None:
    table = bundle.table(FEATURES_TEST)
    if table is None:
        return
    for side in SIDES:
        own = table[table["side"] == side]
        columns = columns_of(own)
        place = f"{FEATURES_TEST.name} {side}"
        _check_selectivity(place, columns, findings)
        p = holm(columns["p_value"])
        findings.column(CONFIRMED, f"{place} p_holm", columns["p_holm"], p)
        if side == "coarse":
            latents = LatentStatistics.of_columns({**columns, "q_value": p})
            passing = selective_latents(latents, thresholds_of(bundle.experiment["selection"]))
            confirmed = columns["confirmed"].astype(bool)
            findings.column(CONFIRMED, f"{place} confirmed", confirmed, passing)
            findings.same(
                CONFIRMED, f"{place} latent", own["latent"].tolist(), candidates_of(bundle, side)
            )


def _check_pairs(bundle: OpenBundle, findings: Findings) -> None:
    table, fine = bundle.table(PAIRS), bundle.frame(bundled_features("fine"))
    if table is None or fine is None:
        return
    columns, name = columns_of(table), PAIRS.name
    rules: MappingRulesJson = bundle.experiment["mapping"]
    gate: GateJson = bundle.experiment["gate"]
    searched = columns["proposed_by"] == "correlation"
    p = np.where(searched, columns["p_search"], columns["p_permutation"])
    q = benjamini_hochberg(p)
    findings.column(EDGES, f"{name} q_permutation", columns["q_permutation"], q)
    edge = np.select(
        [np.isnan(p), q <= bundle.experiment["selection"]["maxQ"]],
        ["not tested", "not independent"],
        default="not shown",
    )
    findings.column(EDGES, f"{name} edge", columns["edge"], edge)
    lies = readings(
        columns["cosine"],
        columns["correlation"],
        rules["minCosine"],
        rules["partialCosine"],
        rules["minCorrelation"],
    )
    findings.column(EDGES, f"{name} reading", columns["reading"], lies)
    selectivity = fine.set_index("latent")["selectivity"].loc[columns["fine"]].to_numpy()
    limits = ChildThresholds(
        rules["minCosine"], rules["minCorrelation"], gate["minFineSelectivity"]
    )
    behaves = behaves_like_child(gate["rule"], columns["correlation"], selectivity, limits)
    child = (columns["cosine"] >= limits.cosine_min) & behaves
    findings.column(EDGES, f"{name} child", columns["child"], child)
