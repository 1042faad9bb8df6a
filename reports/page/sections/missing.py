"""A section without an artifact to show."""

from __future__ import annotations

from dataclasses import dataclass

from loopscope.views.experiment import StageView


@dataclass(frozen=True)
class Missing:
    """A stage that says why there is nothing; the template shows its problem."""

    stage: StageView
