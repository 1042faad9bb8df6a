"""The payload and the metrics of the stage *trace*."""

from __future__ import annotations

from typing import TypedDict

from loopscope.specs.payloads.references import UpstreamArtifact
from loopscope.specs.payloads.steering import SteeringPayload


class TracePayload(TypedDict):
    """What a trace is made from.

    ``work`` is the payload of the steering without what scores its texts, ``steered`` what it made.
    """

    openings: int
    work: SteeringPayload
    steered: UpstreamArtifact


class TraceMetrics(TypedDict):
    """The numbers of a trace: texts cut into tokens, and the steps of those that are followed."""

    texts: int
    tokens: int
    followed: int
    steps: int
