"""An explanation as a document: what ``why -o json`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from loopscope.specs.status import ConditionJson
from loopscope.state.records import JobHead, JobState
from loopscope.views.explanation import Explanation, Link, LinkState, Who


class LinkJobDocument(TypedDict):
    """The job of an object."""

    id: int
    stage: str
    state: JobState
    attempts: int


class LinkDocument(TypedDict):
    """One object on the chain; its condition's time is in Unix seconds."""

    kind: str
    namespace: str
    name: str
    state: LinkState
    changed: list[str]
    digest: str | None
    upstream: Mapping[str, str]
    job: LinkJobDocument | None
    shares: list[LinkJobDocument]
    condition: ConditionJson[float] | None


class ExplanationDocument(TypedDict):
    """The chain, outermost object first, and who does what next."""

    chain: list[LinkDocument]
    next: str
    who: Who


def explanation_document(found: Explanation) -> ExplanationDocument:
    """Return an explanation as a document."""
    return {"chain": [_link(link) for link in found.links], "next": found.next, "who": found.who}


def _link(link: Link) -> LinkDocument:
    return {
        "kind": link.key.kind,
        "namespace": link.key.namespace,
        "name": link.key.name,
        "state": link.state,
        "changed": list(link.changed),
        "digest": link.digest,
        "upstream": link.upstream,
        "job": _job(link.job) if link.job is not None else None,
        "shares": [_job(one) for one in link.shares],
        "condition": link.condition.to_json() if link.condition is not None else None,
    }


def _job(job: JobHead) -> LinkJobDocument:
    return {"id": job.id, "stage": job.stage, "state": job.state, "attempts": job.attempts}
