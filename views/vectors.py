"""Vectors that travel: what an experiment measured of one arm at one strength."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.statistics.paired import paired_contrast
from loopscope.reconcilers.steering import scored_openings
from loopscope.specs.artifacts.capture import NORMS
from loopscope.specs.artifacts.steering import ARMS, NEUTRAL_TEXT, SCORES, VERDICT
from loopscope.specs.payloads.references import UpstreamArtifact
from loopscope.specs.pipeline import NodeName
from loopscope.specs.spec_json import SteeringJson
from loopscope.specs.vectors import (
    NO_VECTOR,
    Measured,
    VectorDamage,
    VectorEffect,
    VectorStrength,
    VectorTested,
)
from loopscope.views.experiment import ExperimentView
from loopscope.views.questions import strengths_of
from loopscope.views.scored_cells import groups_of

UNSTEERED = "none"
RANDOM = "random"


def measured_of(view: ExperimentView, arm: str, strength: float | None) -> Measured:
    """Return what is known of an arm's vector at a strength, by default the strongest steered.

    Raises LookupError for an arm that is not one vector or that the steering does not have, and
    for a strength at which it was not steered.
    """
    chosen = _strength(view, arm, strength)
    stage = view.stage("steering")
    return {
        "arm": arm,
        "strength": _calibrated(view, arm, chosen),
        "effect": _effect(view, arm, chosen),
        "damage": _damage(view, arm, chosen),
        "tested": _tested(view),
        "artifacts": {name: _reference(view, name) for name in ("steering", "mapping", "capture")},
        "made_by": {
            name: str(known)
            for name, known in stage.manifest.get("libraries", {}).items()
            if known is not None
        },
    }


def _strength(view: ExperimentView, arm: str, strength: float | None) -> float:
    known = strengths_of(view)
    if arm in NO_VECTOR:
        raise LookupError(
            f"the arm {arm} is {NO_VECTOR[arm]}, no vector that could travel; name one of "
            f"{', '.join(_vectors(known))}"
        )
    if arm == RANDOM:
        draws = ", ".join(name for name in known if name.startswith(f"{RANDOM}-"))
        raise LookupError(
            f"the arm random is several vectors; name one of them: {draws or 'none is there'}"
        )
    if arm not in known:
        raise LookupError(
            f"{view.name} steered no arm {arm!r}{_why_missing(view, arm)}; it has "
            f"{', '.join(_vectors(known)) or 'none'}"
        )
    wanted = max(known[arm]) if strength is None else strength
    if wanted not in known[arm]:
        there = ", ".join(f"{one:g}" for one in known[arm])
        raise LookupError(
            f"{arm} was not steered at {wanted:g}, so neither its effect nor its damage is known "
            f"there; its strengths are {there} ({view.stage('steering').spec['strengthUnit']})"
        )
    return wanted


def _vectors(known: Mapping[str, list[float]]) -> list[str]:
    return [arm for arm in known if arm not in NO_VECTOR]


def _why_missing(view: ExperimentView, arm: str) -> str:
    why = view.stage("steering").document(VERDICT).get("missing", {}).get(arm)
    return f" ({why})" if why else ""


def _row(view: ExperimentView, arm: str, strength: float) -> Mapping[Any, Any] | None:
    table = view.stage("steering").table(ARMS)
    found = table[(table["arm"] == arm) & (table["strength"] == strength)].to_dict("records")
    return found[0] if found else None


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _number(row: Mapping[Any, Any] | None, column: str) -> float | None:
    return None if row is None else _known(row.get(column))


def _calibrated(view: ExperimentView, arm: str, strength: float) -> VectorStrength:
    row = _row(view, arm, strength)
    assert row is not None, "the arm was steered at this strength"
    capture = view.stage("capture")
    if not capture.available:
        raise LookupError(f"{view.name} has no capture: {capture.problem}")
    norms = capture.document(NORMS)
    return {
        "strength": strength,
        "unit": str(view.stage("steering").spec["strengthUnit"]),
        "norm": float(row["norm"]),
        "median_norm": norms["median_norm"],
        "median_centred_norm": norms["median_centred_norm"],
    }


def _effect(view: ExperimentView, arm: str, strength: float) -> VectorEffect:
    row, unsteered = _row(view, arm, strength), _row(view, UNSTEERED, 0.0)
    assert row is not None, "the arm was steered at this strength"
    with_it, openings = _concept(view, arm, strength)
    spec = cast(SteeringJson, view.stage("steering").spec)
    effect: VectorEffect = {
        "outcome": "concept",
        "rate": float(row["concept_rate"]),
        "rate_low": float(row["concept_low"]),
        "rate_high": float(row["concept_high"]),
        "unsteered_rate": _number(unsteered, "concept_rate"),
        "difference": None,
        "low": None,
        "high": None,
        "p_two_sided": None,
        "openings": len(openings),
        "texts": int(row["n"]),
    }
    if unsteered is not None:
        before, _ = _concept(view, UNSTEERED, 0.0)
        contrast = paired_contrast(
            f"{arm}-{UNSTEERED}",
            with_it.mean(axis=1),
            before.mean(axis=1),
            group=groups_of(spec, openings),
            unit=1.0 / with_it.shape[1],
        )
        effect["difference"] = contrast.estimate
        effect["low"], effect["high"] = _known(contrast.low), _known(contrast.high)
        effect["p_two_sided"] = contrast.p_two_sided
    return effect


def _concept(
    view: ExperimentView, arm: str, strength: float
) -> tuple[NDArray[np.float64], list[str]]:
    """Return the concept scores [openings, samples] of a cell, and the openings, sorted."""
    scores = view.stage("steering").table(SCORES)
    own = scores[(scores["arm"] == arm) & (scores["strength"] == strength)]
    found = own.pivot(index="prompt_id", columns="sample", values="concept").sort_index()
    return found.to_numpy(dtype=np.float64), list(found.index)


def _damage(view: ExperimentView, arm: str, strength: float) -> VectorDamage:
    row, before = _row(view, arm, strength), _row(view, UNSTEERED, 0.0)
    assert row is not None, "the arm was steered at this strength"
    return {
        "next_token_kl": float(row["kl"]),
        "median_perplexity": _number(row, "median_perplexity"),
        "unsteered_median_perplexity": _number(before, "median_perplexity"),
        "intact_rate": _number(row, "intact"),
        "unsteered_intact_rate": _number(before, "intact"),
        "sibling_rate": _number(row, "sibling"),
        "unsteered_sibling_rate": _number(before, "sibling"),
    }


def _tested(view: ExperimentView) -> VectorTested:
    stage = view.stage("steering")
    spec = cast(SteeringJson, stage.spec)
    verdict = stage.document(VERDICT)
    gate = view.stage("mapping").metrics.get("verdict")
    return {
        "experiment": f"{view.experiment.key.namespace}/{view.name}",
        "gate": None if gate is None else str(gate),
        "verdict": verdict["verdict"],
        "reason": verdict["reason"],
        "method": spec.get("method", "add"),
        "openings": len(scored_openings(spec)),
        "samples_per_opening": spec["samplesPerPrompt"],
        "new_tokens_max": spec["maxNewTokens"],
        "neutral_texts": int(stage.table(NEUTRAL_TEXT)["number"].nunique()),
        "sampling": spec["sampling"],
        "in_chat_template": "chat" in view.stage("capture").spec["prompts"],
    }


def _reference(view: ExperimentView, name: NodeName) -> UpstreamArtifact:
    artifact = view.stage(name).artifact
    if artifact is None:
        raise LookupError(f"{view.name} has no {name}: {view.stage(name).problem}")
    return {"digest": artifact.digest, "contentDigest": artifact.content_digest}
