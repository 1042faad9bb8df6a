"""Mapping: fine latents onto coarse ones, and the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from loopscope.reconcilers.plan import Blocked, Desired, Snapshot, Wanted
from loopscope.reconcilers.references import object_references
from loopscope.reconcilers.stage import (
    artifact_of,
    last_used,
    needed_json,
    ready_reference,
    reference_json,
)
from loopscope.specs.actions import Action
from loopscope.specs.artifacts.decomposition import PROMPTS
from loopscope.specs.payloads.geometry import COSINE_FLOOR, GeometryPayload
from loopscope.specs.payloads.mapping import MappingPayload, MappingWork
from loopscope.specs.payloads.references import DecompositionReference
from loopscope.specs.pipeline import NodeName
from loopscope.specs.rules import Gate, MappingRules
from loopscope.specs.spec_json import ExperimentJson, GateRulesJson, MappingJson, MappingRulesJson
from loopscope.state.records import ArtifactRecord, ObjectRecord

_RULES = (
    "minCosine", "partialCosine", "minCorrelation", "topK", "permutations", "seed", "anchor",
)  # fmt: skip


def desired(snapshot: Snapshot) -> Desired:
    """Return the mapping that the spec asks for, once both decompositions are Ready."""
    sides = both_sides(snapshot)
    if isinstance(sides, Blocked):
        return sides
    spec = cast(MappingJson, snapshot.object.spec)
    return _no_candidate(spec, sides["coarse"][0]) or _wanted(spec, sides)


def both_sides(snapshot: Snapshot) -> dict[str, tuple[ObjectRecord, ArtifactRecord]] | Blocked:
    """Return two decompositions that fit each other, or why the object waits or cannot go on."""
    sides: dict[str, tuple[ObjectRecord, ArtifactRecord]] = {}
    for name, key in zip(("coarse", "fine"), object_references(snapshot.object), strict=True):
        record = ready_reference(snapshot, key, last_used(snapshot, name))
        if isinstance(record, Blocked):
            return record
        artifact = artifact_of(snapshot, record)
        if isinstance(artifact, Blocked):
            return artifact
        sides[name] = (record, artifact)
    return _mismatch(sides) or sides


def owned(experiment: ExperimentJson, _: NodeName) -> Mapping[str, object]:
    """Return the spec, without its references, of the mapping that an experiment owns."""
    return {**experiment["mapping"], "gate": experiment["gate"]}


def _no_candidate(spec: MappingJson, coarse: ObjectRecord) -> Blocked | None:
    """Return why the anchor that the spec names cannot be steered, if it cannot."""
    candidates = coarse.status.summary["candidates"]
    if "anchor" not in spec or spec["anchor"] in candidates:
        return None
    known = ", ".join(str(latent) for latent in candidates) or "there are none"
    return Blocked(
        "InputMismatch",
        f"mapping.anchor {spec['anchor']} is no candidate of {coarse.key}: {known}; name one of "
        "these, or leave it out",
        terminal=True,
    )


def _wanted(spec: MappingJson, sides: dict[str, tuple[ObjectRecord, ArtifactRecord]]) -> Wanted:
    coarse, _ = sides["coarse"]
    given = {name: value for name, value in spec.items() if name in _RULES}
    gate = Gate.model_validate(spec["gate"]).canonical()
    del gate["policy"]
    if not gate.get("sensitivity"):  # left out, so that what was made without it stays valid
        gate.pop("sensitivity", None)
    work: MappingWork = {
        **cast(MappingRulesJson, MappingRules.model_validate(given).canonical()),
        "gate": cast(GateRulesJson, gate),
        "selection": coarse.spec["selection"],
    }
    candidates = coarse.status.summary["candidates"]
    references = {name: decomposition_reference(*side) for name, side in sides.items()}
    geometry = geometry_of(references["coarse"], references["fine"])
    declared = {
        **work,
        "candidates": candidates,
        "geometry": geometry.digest,
        **{
            name: [side["contentDigest"], side["dictionary"]["identity"]]
            for name, side in references.items()
        },
    }
    capture = coarse.status.inputs["capture"]
    payload: MappingPayload = {
        **work,
        "coarse": {**references["coarse"], "candidates": candidates},
        "fine": references["fine"],
        "capture": capture,
        "geometry": needed_json(geometry),
    }
    inputs = {
        name: {"object": record.key.name, **references[name]} for name, (record, _) in sides.items()
    }
    return Wanted(
        Action("mapping", declared, payload),
        {**inputs, "capture": capture, "geometry": needed_json(geometry)},
        needs=(geometry,),
        remarks=_remarks(work["minCosine"]),
    )


def _remarks(cosine_min: float) -> tuple[str, ...]:
    if cosine_min >= COSINE_FLOOR:
        return ()
    return (
        f"minCosine {cosine_min:g} is below {COSINE_FLOOR:g}, from where on the geometry of the "
        "dictionaries lists all pairs: all cosines are computed anew for this mapping",
    )


def geometry_of(coarse: DecompositionReference, fine: DecompositionReference) -> Action:
    """Return what the two dictionaries have to do with each other: all concepts share it."""
    payload: GeometryPayload = {"coarse": coarse["dictionary"], "fine": fine["dictionary"]}
    identities = {
        name: side["dictionary"]["identity"] for name, side in (("coarse", coarse), ("fine", fine))
    }
    return Action("geometry", identities, payload)


def decomposition_reference(
    record: ObjectRecord, artifact: ArtifactRecord
) -> DecompositionReference:
    """Return how a payload refers to a decomposition and the dictionary that it was made with."""
    return {**reference_json(artifact), "dictionary": record.status.inputs["dictionary"]["ref"]}


def _mismatch(sides: dict[str, tuple[ObjectRecord, ArtifactRecord]]) -> Blocked | None:
    coarse, fine = sides["coarse"][0], sides["fine"][0]
    captures = [r.status.inputs["capture"]["contentDigest"] for r in (coarse, fine)]
    aggregations = [r.spec["aggregation"] for r in (coarse, fine)]
    if captures[0] != captures[1]:
        return Blocked(
            "InputMismatch",
            f"{coarse.key} and {fine.key} decompose different captures; use one",
            terminal=True,
        )
    if aggregations[0] != aggregations[1]:
        return Blocked(
            "InputMismatch",
            f"{coarse.key} aggregates by {aggregations[0]}, {fine.key} by {aggregations[1]}; "
            "use one",
            terminal=True,
        )
    prompts = [artifact.files.get(PROMPTS.name) for _, artifact in sides.values()]
    if prompts[0] != prompts[1]:
        return Blocked(
            "InputMismatch",
            f"{coarse.key} and {fine.key} divide or group their prompts differently; let both "
            "rest on one Capture",
            terminal=True,
        )
    return None
