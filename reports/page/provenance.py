"""Provenance of every number: inputs, digests, versions, device, seeds and timings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from loopscope.reports.page.story import model_facts
from loopscope.specs.pipeline import PIPELINE, NodeName
from loopscope.views.documents.objects import applicable_document
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.numbers import byte_size, iso
from loopscope.views.owner import owner_json, owner_words

VALUE_CHARACTERS_MAX = 300
_SHOWN_ELSEWHERE = {"files", "metrics", "contentDigest", "digest", "stage", "createdAt"}

_TITLES: dict[NodeName, str] = {
    "capture": "Model",
    "coarse": "Coarse dictionary",
    "fine": "Fine dictionary",
}


@dataclass(frozen=True)
class StageProvenance:
    """One stage's artifact and how it was made, as (name, value) rows."""

    name: str
    digest: str
    content_digest: str
    made_at: str
    size: str
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class Provenance:
    """What the model is, what the references resolved to, the artifacts, and the spec as YAML.

    ``owner`` says in a sentence of which sweep or study the experiment is one; empty where of none.
    """

    model: Mapping[str, Any]
    inputs: list[tuple[str, list[tuple[str, str]]]]
    stages: list[StageProvenance]
    spec: str
    owner: str


def provenance(view: ExperimentView) -> Provenance:
    """Return inputs, artifacts and the spec."""
    return Provenance(
        model_facts(view),
        resolved_inputs(view),
        [stage_provenance(s) for s in view.stages.values() if s.artifact is not None],
        spec_yaml(view),
        _owner(view),
    )


def _owner(view: ExperimentView) -> str:
    if view.owner is None:
        return ""
    return owner_words(owner_json(view.owner, view.experiment), view.name)


def stage_provenance(stage: StageView) -> StageProvenance:
    """Return the provenance of an available stage."""
    artifact = stage.artifact
    if artifact is None:
        raise LookupError(f"{stage.name} has no artifact: {stage.problem}")
    facts = {k: v for k, v in stage.manifest.items() if k not in _SHOWN_ELSEWHERE}
    return StageProvenance(
        name=stage.name,
        digest=artifact.digest,
        content_digest=artifact.content_digest,
        made_at=iso(artifact.created_at) or "",
        size=byte_size(artifact.bytes),
        facts=list(flattened(facts)),
    )


def resolved_inputs(view: ExperimentView) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what the model and the dictionaries resolved to, as (title, rows)."""
    found = []
    for node in PIPELINE:
        record = view.stage(node.name).record
        facts = record.status.inputs.get(node.loads) if record and node.loads else None
        if isinstance(facts, dict):
            found.append((_TITLES[node.name], list(flattened(facts))))
    return found


def spec_yaml(view: ExperimentView) -> str:
    """Return the experiment as YAML that can be applied again, prompt texts in place."""
    return yaml.safe_dump(
        applicable_document(view.experiment), sort_keys=False, allow_unicode=True, width=100
    )


def flattened(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested values as (dotted name, text); long ones are cut, with their length."""
    for name, item in value.items():
        path = f"{prefix}{name}"
        if isinstance(item, Mapping) and item:
            yield from flattened(item, f"{path}.")
            continue
        text = ", ".join(str(part) for part in item) if isinstance(item, list) else str(item)
        if len(text) > VALUE_CHARACTERS_MAX:
            text = f"{text[:VALUE_CHARACTERS_MAX]}… ({len(text):,} characters, in the manifest)"
        yield path, text
