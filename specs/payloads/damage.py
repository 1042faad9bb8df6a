"""The payload and the metrics of the stage *damage*."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from loopscope.specs.choices import Choice
from loopscope.specs.payloads.references import UpstreamArtifact
from loopscope.specs.payloads.steering import SteeringPayload


class DamagePayload(TypedDict):
    """What a damage is made from; ``work`` is the steering's without what scores its texts."""

    texts: list[str]
    choices: list[Choice]
    sides: dict[str, list[str]]
    maxLoss: NotRequired[float]
    work: SteeringPayload
    steered: UpstreamArtifact


class DamageMetrics(TypedDict):
    """The numbers of a damage.

    ``next_token`` and ``choices`` are the unsteered model's shares, ``multi_…`` the largest loss of
    multi over its strengths; None without the arm. ``holds`` says whether that loss stays within
    ``maxLoss`` with its whole interval, in both; None where no limit is declared.
    """

    texts: int
    items: int
    next_token: float | None
    choices: float | None
    multi_next_token_loss: float | None
    multi_choices_loss: float | None
    holds: bool | None
