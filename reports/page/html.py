"""The report: one HTML file that needs nothing else and asks nothing of any network.

Every text is escaped by the template engine, and a content security policy in the page forbids
requests and every script but the one whose hash it names (``exploring``), so a hostile prompt is
only ever text. The static page has no script at all.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError

from loopscope.reports.page.exploring import STATIC_POLICY, exploring
from loopscope.reports.page.figures.mapping import READINGS, reading_class
from loopscope.reports.page.figures.steering import arm_class
from loopscope.reports.page.in_short import in_short
from loopscope.reports.page.provenance import provenance
from loopscope.reports.page.sections.anchors import candidates, capture
from loopscope.reports.page.sections.latents import latents
from loopscope.reports.page.sections.mapping import mapping
from loopscope.reports.page.sections.status import status
from loopscope.reports.page.sections.steering import steering
from loopscope.reports.page.story import headline, sentence
from loopscope.specs.artifacts.steering import SCORES, VERDICT
from loopscope.specs.spec_json import SteeringJson
from loopscope.state.artifacts.store import Corrupt
from loopscope.views import numbers
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.sensitivity import Range, verdict_by_min_difference
from loopscope.views.several import COLUMNS, Several

TEMPLATES = Path(__file__).parent / "templates"


def render_report(view: ExperimentView, *, explorable: bool = True) -> str:
    """Return the report of an experiment as a self-contained HTML page.

    Without ``explorable`` it has no script and the same content. Equal views give equal bytes: no
    clock is read. A stage without an artifact is shown as missing, with the reason. Raises Corrupt
    when a whole artifact holds other tables or fields than this version reads.
    """
    template = _environment().get_template("report.html.j2")
    try:
        return template.render(**_sections(view, explorable))
    except _UNREADABLE as error:
        raise Corrupt(
            f"an artifact of {view.experiment.key} does not hold what this version reads "
            f"({type(error).__name__}: {error}); its bytes are those that were recorded"
        ) from error


def render_several(title: str, found: Several) -> str:
    """Return the verdicts of several experiments as a self-contained HTML page."""
    template = _environment().get_template("several.html.j2")
    return template.render(title=title, found=found, columns=COLUMNS)


_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, UndefinedError)
"""What wrong columns, names or types inside a whole artifact lead to."""


def _sections(view: ExperimentView, explorable: bool) -> dict[str, object]:
    shown, sensitivity = latents(view), _sensitivity(view.stage("steering"))
    return {
        "exploring": exploring(view, shown, sensitivity) if explorable else None,
        "static_policy": STATIC_POLICY,
        "latents": shown,
        "sensitivity": sensitivity,
        "view": view,
        "headline": headline(view),
        "in_short": in_short(view, shown, sensitivity),
        "status": status(view),
        "capture": capture(view),
        "coarse": candidates(view, "coarse"),
        "fine": candidates(view, "fine"),
        "confirmation": view.confirmation,
        "mapping": mapping(view),
        "steering": steering(view),
        "provenance": provenance(view),
        "readings": READINGS,
    }


def _sensitivity(steered: StageView) -> list[Range]:
    if not steered.available:
        return []
    scores, verdict = steered.table(SCORES), steered.document(VERDICT)
    return verdict_by_min_difference(scores, verdict, cast("SteeringJson", steered.spec))


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "decimal": numbers.decimal,
        "signed": numbers.signed,
        "count": numbers.count,
        "percent": numbers.percent,
        "small": numbers.small,
        "iso": numbers.iso,
        "sentence": sentence,
        "arm_class": arm_class,
        "reading_class": reading_class,
        "zip": lambda left, right: list(zip(left, right, strict=True)),
    }
    environment.globals["interval"] = numbers.interval
    return environment
