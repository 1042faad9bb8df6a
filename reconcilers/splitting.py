"""Splitting: the graph from the coarse latents of a concept to the fine ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from loopscope.reconcilers.mapping import both_sides, decomposition_reference, geometry_of
from loopscope.reconcilers.plan import Blocked, Desired, Snapshot, Wanted
from loopscope.reconcilers.stage import needed_json
from loopscope.specs.actions import Action
from loopscope.specs.payloads.mapping import CoarseReference
from loopscope.specs.payloads.splitting import SplittingPayload, SplittingWork
from loopscope.specs.pipeline import NodeName
from loopscope.specs.spec_json import ExperimentJson, SplittingJson
from loopscope.state.records import ArtifactRecord, ObjectRecord


def desired(snapshot: Snapshot) -> Desired:
    """Return the splitting graph that the spec asks for, once both decompositions are Ready."""
    sides = both_sides(snapshot)
    if isinstance(sides, Blocked):
        return sides
    spec = cast(SplittingJson, snapshot.object.spec)
    work: SplittingWork = {
        "minCosine": spec["minCosine"],
        "minCorrelation": spec["minCorrelation"],
        "twinCosine": spec["twinCosine"],
        "minHole": spec["minHole"],
        "draws": spec["draws"],
        "resamples": spec["resamples"],
        "seed": spec["seed"],
    }
    references = {name: _reference(*side) for name, side in sides.items()}
    geometry = geometry_of(references["coarse"], references["fine"])
    declared = {
        **work,
        "geometry": geometry.digest,
        **{
            name: [side["contentDigest"], side["dictionary"]["identity"], side["candidates"]]
            for name, side in references.items()
        },
    }
    payload: SplittingPayload = {
        **work,
        "coarse": references["coarse"],
        "fine": references["fine"],
        "geometry": needed_json(geometry),
    }
    inputs = {
        **{
            name: {"object": record.key.name, **decomposition_reference(record, artifact)}
            for name, (record, artifact) in sides.items()
        },
        "geometry": needed_json(geometry),
    }
    return Wanted(Action("splitting", declared, payload), inputs, needs=(geometry,))


def owned(experiment: ExperimentJson, _: NodeName) -> Mapping[str, object]:
    """Return the spec, without its references, of the splitting graph that an experiment owns."""
    rules = experiment["mapping"]
    edges = {name: rules[name] for name in ("minCosine", "minCorrelation")}
    return {**experiment["splitting"], **edges}


def _reference(record: ObjectRecord, artifact: ArtifactRecord) -> CoarseReference:
    candidates = record.status.summary["candidates"]
    return {**decomposition_reference(record, artifact), "candidates": candidates}
