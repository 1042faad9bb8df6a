"""Actions: a stage with everything that may influence its result.

The action digest covers the stage, its code revision, the declared spec fields and the
*content* digests of its inputs. Paths and names of people's choosing stay outside it; they
travel in the payload only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from loopscope.specs.canonical import digest

Stage = Literal["capture", "decomposition", "mapping", "steering"]

CODE_REVISIONS: dict[Stage, int] = {
    "capture": 3,
    "decomposition": 2,
    "mapping": 4,
    "steering": 6,
}
"""Raise a stage's number by hand when its code changes what it computes."""


@dataclass(frozen=True)
class Action:
    """One piece of work: ``declared`` identifies it, ``payload`` is what a worker needs."""

    stage: Stage
    declared: dict[str, Any]
    payload: dict[str, Any]

    @property
    def code_revision(self) -> int:
        """The revision of the stage's code that the digest names."""
        return CODE_REVISIONS[self.stage]

    @property
    def way(self) -> str:
        """Stands for the payload: how the inputs are reached now."""
        return digest(self.payload)

    @property
    def digest(self) -> str:
        """The name of this work and of its artifact."""
        return digest(
            {"stage": self.stage, "revision": self.code_revision, "declared": self.declared}
        )
