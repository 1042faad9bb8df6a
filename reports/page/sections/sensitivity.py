"""The section of sensitivity: the verdict under other choices, in one table and one picture."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from loopscope.reports.page.figures.looks import looks_picture
from loopscope.specs.artifacts.steering import VERDICT
from loopscope.views.experiment import ExperimentView
from loopscope.views.sensitivity.looks import Looks
from loopscope.views.sensitivity.rows import HEAD, ShownLooks, shown_looks, told_looks


@dataclass(frozen=True)
class SensitivitySection:
    """The looks at a verdict as cells below ``head``, and their picture if any has a difference."""

    head: tuple[str, ...]
    told: ShownLooks
    figure: Markup | None


def sensitivity_section(view: ExperimentView, looks: Looks) -> SensitivitySection | None:
    """Return what would have changed the answer; None where nothing was steered."""
    if not looks.rows:
        return None
    limit = view.stage("steering").document(VERDICT).get("min_difference")
    figure = looks_picture(shown_looks(looks)[0], limit)
    return SensitivitySection(HEAD, told_looks(looks), figure)
