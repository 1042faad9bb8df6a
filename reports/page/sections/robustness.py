"""The section of robustness: each arm under other sampling rules and other openings."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from loopscope.reports.page.figures.robustness import robustness_picture
from loopscope.reports.text_table import TextTable
from loopscope.views.robustness import HEAD, Robustness, robustness_rows, robustness_sentence


@dataclass(frozen=True)
class RobustnessSection:
    """A row a run and arm, the same as a picture, and what it is in a sentence."""

    arms: TextTable
    figure: Markup
    sentence: str


def robustness_section(found: Robustness) -> RobustnessSection | None:
    """Return the arms under every rule that was run; None where one alone was."""
    if found.arms.empty:
        return None
    rows = TextTable([*HEAD], robustness_rows(found))
    return RobustnessSection(rows, robustness_picture(found), robustness_sentence(found))
