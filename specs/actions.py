"""Actions: a stage with everything that may influence its result.

The action digest covers the stage, its code revision, the declared spec fields and the
*content* digests of its inputs. Paths and names of people's choosing stay outside it; they
travel in the payload only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from loopscope.specs.canonical import digest

Stage = Literal[
    "capture",
    "decomposition",
    "geometry",
    "mapping",
    "splitting",
    "evidence",
    "ablation",
    "steering",
    "scores",
    "scoring",
    "damage",
    "trace",
    "drift",
    "question",
]

WITHOUT_SHARDS: frozenset[Stage] = frozenset({"mapping", "splitting", "scoring", "trace"})
"""Stages whose work is one piece: it ends or begins anew."""

SHAREABLE: frozenset[Stage] = frozenset({"capture"})
"""Stages whose shards depend on no other shard, so that several workers may make them at once."""

CODE_REVISIONS: dict[Stage, int] = {
    "capture": 4,
    "decomposition": 3,
    "geometry": 1,
    "mapping": 7,
    "splitting": 1,
    "evidence": 1,
    "ablation": 1,
    "steering": 9,
    "scores": 1,
    "scoring": 1,
    "damage": 1,
    "trace": 1,
    "drift": 1,
    "question": 1,
}
"""Raise a stage's number by hand when its code changes what it computes, and describe the change
in ``REVISION_NOTES``: work of an older revision is not made again in silence."""

REVISION_NOTES: dict[Stage, dict[int, str]] = {
    "capture": {
        3: "nothing comes from another capture but what its own payload would have made",
        4: "splits and groups are no longer part of it; the calibration text always is",
    },
    "decomposition": {
        3: "rates over the calibration text",
    },
    "geometry": {},
    "mapping": {
        4: "too few prompts to find anything are INCONCLUSIVE; maxQ 1 asks for no test",
        5: "anchors matched on text; mean rank; controls with the decoder's covariance",
        6: "cosines of all pairs are those of the shared geometry: the same within rounding",
        7: "controls draw only rows that may count; sparse products: other draws and last digits",
    },
    "splitting": {},
    "evidence": {},
    "ablation": {},
    "steering": {
        6: "no verdict without a working assay; exact intervals",
        7: "budgets on all neutral texts with their error; placebo prompt; "
        "what else changes is measured on fixed text",
        8: "products in other orders and batches: other last digits; the verdict names its anchor",
        9: "texts are read again from their hook on, products are packed: other last digits",
    },
    "scores": {},
    "scoring": {},
    "damage": {},
    "trace": {},
    "drift": {},
    "question": {},
}
"""What a revision of a stage's code changed, in one phrase; the oldest ones are left out."""


@dataclass(frozen=True)
class Action:
    """One piece of work: ``declared`` identifies it, ``payload`` is what a worker needs."""

    stage: Stage
    declared: Mapping[str, object]
    payload: Mapping[str, object]

    @property
    def code_revision(self) -> int:
        """The revision of the stage's code that the digest names."""
        return CODE_REVISIONS[self.stage]

    @cached_property
    def way(self) -> str:
        """Stands for the payload: how the inputs are reached now."""
        return digest(self.payload)

    @property
    def digest(self) -> str:
        """The name of this work and of its artifact."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return digest(
            {"stage": self.stage, "revision": self.code_revision, "declared": self.declared}
        )
