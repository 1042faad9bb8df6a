"""Statements that several documents of a bundle share: each number stands in more than one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.specs.pipeline import NODES, PIPELINE, NodeName

STATUS = "status.json: artifacts and numbers as in the manifests"
SUMMARY = "status.json: the experiment's summary as in its stages"
INPUTS = "manifests: each stage rests on the artifact that is here"
_OF_MAPPING = {
    "gate": "verdict",
    "percentile": "percentile",
    "confirmation": "confirmation",
    "anchor": "anchor",
    "anchor_children": "children",
    "anchor_rank": "anchor_rank",
    "gate_reason": "reason",
}
"""Numbers of an experiment's summary, by what they are called in that of its mapping."""
_OF_STEERING = (
    "verdict", "reason", "contrast", "estimate", "low", "high", "n", "p", "primary",
)  # fmt: skip


def check_stated(bundle: OpenBundle, findings: Findings) -> None:
    """Compare the status of the objects with the manifests, and these with one another."""
    with findings.part(STATUS, "status.json"):
        objects = _objects(bundle)
        for node in PIPELINE:
            _check_object(bundle, node.name, objects.get(node.name), findings)
    with findings.part(SUMMARY, "status.json"):
        _check_summary(bundle, objects.get(None, {}), findings)
    with findings.part(INPUTS, "manifests"):
        _check_inputs(bundle, findings)


def _objects(bundle: OpenBundle) -> dict[NodeName | None, Mapping[str, Any]]:
    """Return the status of each stage's object, and under None that of the experiment."""
    found: dict[NodeName | None, Mapping[str, Any]] = {}
    documents = bundle.json("status.json")
    name = documents[0]["metadata"]["name"]
    for one in documents:
        own = one["metadata"]["name"]
        stage = next((n for n in NODES if own == f"{name}-{n}"), None)
        found[NODES[stage].name if stage is not None else None] = one["status"]
    return found


def _check_object(
    bundle: OpenBundle, name: NodeName, status: Mapping[str, Any] | None, findings: Findings
) -> None:
    manifest = bundle.manifest(name)
    reference = status["artifact"] if status is not None else None
    if manifest is None or status is None or reference is None:
        if manifest is not None:
            findings.differs(STATUS, name, "a manifest", "no artifact in status.json")
        return
    for key in ("stage", "digest", "contentDigest"):
        findings.same(STATUS, f"{name}.artifact.{key}", reference[key], manifest[key])
    for key, value in manifest["metrics"].items():
        if key in status["summary"]:
            findings.same(STATUS, f"{name}.summary.{key}", status["summary"][key], value)


def _check_summary(bundle: OpenBundle, status: Mapping[str, Any], findings: Findings) -> None:
    summary = status.get("summary", {})
    mapping, steering = bundle.manifest("mapping"), bundle.manifest("steering")
    if mapping is not None:
        for name, own in _OF_MAPPING.items():
            if name in summary:
                findings.same(SUMMARY, name, summary[name], mapping["metrics"].get(own))
    if steering is not None:
        for name in _OF_STEERING:
            if name in summary:
                findings.same(SUMMARY, name, summary[name], steering["metrics"].get(name))


def _check_inputs(bundle: OpenBundle, findings: Findings) -> None:
    """Compare the content that a stage was made from with that of the stages beside it."""
    for node in PIPELINE:
        manifest = bundle.manifest(node.name)
        inputs = manifest.get("inputs", {}) if manifest is not None else {}
        for upstream in node.reads:
            other, used = bundle.manifest(upstream), inputs.get(upstream)
            if other is not None and isinstance(used, Mapping) and "contentDigest" in used:
                place = f"{node.name} from {upstream}"
                findings.same(INPUTS, place, used["contentDigest"], other["contentDigest"])
