"""A section without an artifact to show."""

from __future__ import annotations

from dataclasses import dataclass

from loopscope.views.experiment import StageView


@dataclass(frozen=True)
class Missing:
    """A stage without a result; the template shows its problem."""

    stage: StageView
