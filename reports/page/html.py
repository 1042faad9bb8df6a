"""The report: one HTML file that needs nothing else and asks nothing of any network.

Every text is escaped by the template engine, and a content security policy in the page forbids
requests and every script but the one whose hash it names (``exploring``), so a hostile prompt is
only ever text. The static page has no script at all.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError

from loopscope.reports.page.compiled import CompiledTemplates
from loopscope.reports.page.exploring import exploring
from loopscope.reports.page.figures.forest import forest
from loopscope.reports.page.figures.mapping import READINGS, reading_class
from loopscope.reports.page.figures.steering import arm_class
from loopscope.reports.page.first_screen import first_screen
from loopscope.reports.page.glossary import Explained
from loopscope.reports.page.grid import effect
from loopscope.reports.page.policy import STATIC_POLICY, script
from loopscope.reports.page.provenance import provenance
from loopscope.reports.page.sections.ablation import ANSWER_COLUMNS, ablation_section
from loopscope.reports.page.sections.ablation import COLUMNS as ABLATION_COLUMNS
from loopscope.reports.page.sections.anchors import candidates, capture
from loopscope.reports.page.sections.chain import chain_section
from loopscope.reports.page.sections.damage import damage
from loopscope.reports.page.sections.drift import COLUMNS as DRIFT_COLUMNS
from loopscope.reports.page.sections.drift import GRID_COLUMNS, drift_section
from loopscope.reports.page.sections.gate_settings import gate_settings
from loopscope.reports.page.sections.latents import latents
from loopscope.reports.page.sections.mapping import mapping
from loopscope.reports.page.sections.navigator import navigator_section
from loopscope.reports.page.sections.outcomes import outcomes
from loopscope.reports.page.sections.replication import replication_section
from loopscope.reports.page.sections.robustness import robustness_section
from loopscope.reports.page.sections.sensitivity import sensitivity_section
from loopscope.reports.page.sections.splitting import (
    COARSE_COLUMNS,
    FINE_COLUMNS,
    splitting_section,
)
from loopscope.reports.page.sections.status import status
from loopscope.reports.page.sections.steering import steering
from loopscope.reports.page.shift_table import shown_token
from loopscope.reports.page.story import coded, headline, sentence
from loopscope.state.artifacts.store import Corrupt
from loopscope.views import numbers
from loopscope.views.chain import Chain
from loopscope.views.chain_levels import FATE_COLUMNS
from loopscope.views.chain_rows import STEERED_COLUMNS
from loopscope.views.comparison import ComparisonView
from loopscope.views.comparison_rows import comparison_parts, comparison_sentences
from loopscope.views.experiment import ExperimentView
from loopscope.views.labels import NOWHERE, Described
from loopscope.views.ratings import HEAD, Ratings, ratings_of
from loopscope.views.replication.axes import Replicated
from loopscope.views.replication.pairs import Pairs
from loopscope.views.robustness import robustness_of
from loopscope.views.sensitivity.looks import Looks, looks_at
from loopscope.views.several import COLUMNS, Several
from loopscope.views.studies import COLUMNS as STUDY_COLUMNS
from loopscope.views.studies import Study
from loopscope.views.sweeps import Sweep

TEMPLATES = Path(__file__).parent / "templates"
ESCAPED, TRIMMED = True, True
SECTIONS = {
    "headline": {},
    "status": {"status": "Status"},
    "anchors": {"anchors": "Anchors"},
    "mapping": {"mapping": "Mapping", "gate": "Gate"},
    "splitting": {"splitting": "Splitting"},
    "latents": {"latents": "Latents"},
    "navigator": {"navigator": "Navigator"},
    "steering": {"steering": "Steering", "shifts": "Next tokens", "samples": "Samples"},
    "sensitivity": {"sensitivity": "Sensitivity"},
    "ablation": {"ablation": "Necessity"},
    "outcomes": {},
    "damage": {},
    "robustness": {},
    "drift": {"drift": "Drift"},
    "ratings": {},
    "provenance": {"provenance": "Provenance"},
}
"""The templates of the report in their order, and the places in each that the top links to."""


def render_report(
    view: ExperimentView,
    *,
    explorable: bool = True,
    described: Described = NOWHERE,
    looks: Looks | None = None,
) -> str:
    """Return the report of an experiment as a self-contained HTML page.

    Without ``explorable`` it has no script and the same content. ``described`` is what others say
    of the latents: links, which ask nothing until they are followed, and labels; ``looks`` is what
    ``looks_at`` found, if that is known. Equal views give equal bytes: no clock is read. A stage
    without an artifact is shown as missing, with the reason. Raises Corrupt when a whole artifact
    holds other tables or fields than this version reads.
    """
    template = environment().get_template("report.html.j2")
    try:
        known = looks if looks is not None else looks_at(view)
        return template.render(**_sections(view, explorable, described, known))
    except _UNREADABLE as error:
        raise Corrupt(
            f"an artifact of {view.experiment.key} does not hold what this version reads "
            f"({type(error).__name__}: {error}); its bytes are those that were recorded"
        ) from error


def render_several(title: str, found: Several) -> str:
    """Return the verdicts of several experiments as a self-contained HTML page."""
    template = environment().get_template("several.html.j2")
    return template.render(title=title, found=found, columns=COLUMNS)


def render_sweep(
    sweep: Sweep,
    chains: Sequence[Chain] = (),
    replicated: tuple[Replicated, Pairs] | None = None,
    *,
    explorable: bool = True,
) -> str:
    """Return a sweep as a self-contained HTML page: its grid, its chains, what its axes set.

    ``replicated`` is what it tries again, where it does, with the pairs of dictionaries. Without
    ``explorable`` the page has no script and the same content.
    """
    template = environment().get_template("sweep.html.j2")
    return template.render(
        sweep=sweep,
        script=script("grid.js") if explorable else None,
        static_policy=STATIC_POLICY,
        effects=effect([cell.row for cell in sweep.cells]),
        chains=[chain_section(one) for one in chains],
        replicated=replication_section(*replicated) if replicated is not None else None,
        chain_columns=STEERED_COLUMNS,
        fate_columns=FATE_COLUMNS,
    )


def render_study(study: Study) -> str:
    """Return a study as a self-contained HTML page without a script."""
    template = environment().get_template("study.html.j2")
    return template.render(
        study=study, forest=forest(study), columns=STUDY_COLUMNS, static_policy=STATIC_POLICY
    )


def render_comparison(comparison: ComparisonView) -> str:
    """Return two experiments side by side as a self-contained HTML page without a script."""
    template = environment().get_template("compare.html.j2")
    parts = comparison_parts(comparison)
    return template.render(
        comparison=comparison,
        sentences=comparison_sentences(comparison),
        parts=list(reversed(parts)),
        static_policy=STATIC_POLICY,
    )


_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, UndefinedError)
"""What wrong columns, names or types inside a whole artifact lead to."""


def _sections(
    view: ExperimentView, explorable: bool, described: Described, looks: Looks
) -> dict[str, object]:
    shown = latents(view, described)
    settings, plane = gate_settings(view), navigator_section(view)
    exploring_ = exploring(view, shown, looks.ranges, settings, plane.data) if explorable else None
    return {
        "sections": SECTIONS,
        "exploring": exploring_,
        "gate_settings": settings,
        "static_policy": STATIC_POLICY,
        "latents": shown,
        "navigator": plane,
        "sensitivity": sensitivity_section(view, looks),
        "view": view,
        "headline": headline(view),
        "first": first_screen(view, shown, looks, settings),
        "explain": Explained(shown.places),
        "status": status(view),
        "capture": capture(view),
        "coarse": candidates(view, "coarse"),
        "fine": candidates(view, "fine"),
        "confirmation": view.confirmation,
        "mapping": mapping(view),
        "splitting": splitting_section(view),
        "splitting_coarse_columns": COARSE_COLUMNS,
        "splitting_fine_columns": FINE_COLUMNS,
        "steering": steering(view),
        "ablation": ablation_section(view),
        "ablation_columns": ABLATION_COLUMNS,
        "ablation_answer_columns": ANSWER_COLUMNS,
        "outcomes": outcomes(view),
        "damage": damage(view),
        "robustness": robustness_section(robustness_of(view)),
        "drift": drift_section(view),
        "drift_columns": DRIFT_COLUMNS,
        "drift_grid_columns": GRID_COLUMNS,
        "ratings": _ratings(view),
        "rating_head": HEAD,
        "provenance": provenance(view),
        "readings": READINGS,
    }


def _ratings(view: ExperimentView) -> Ratings:
    steered = view.stage("steering")
    return ratings_of(view.rated, steered) if steered.available else Ratings()


@functools.cache
def environment() -> Environment:
    """Return what templates are rendered with: each text in them is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=ESCAPED,
        trim_blocks=TRIMMED,
        lstrip_blocks=TRIMMED,
        bytecode_cache=CompiledTemplates(f"escaped {ESCAPED}, trimmed {TRIMMED}"),
    )
    environment.filters |= {
        "decimal": numbers.decimal,
        "signed": numbers.signed,
        "count": numbers.count,
        "percent": numbers.percent,
        "small": numbers.small,
        "iso": numbers.iso,
        "sentence": sentence,
        "coded": coded,
        "shown": shown_token,
        "arm_class": arm_class,
        "reading_class": reading_class,
        "zip": lambda left, right: list(zip(left, right, strict=True)),
    }
    environment.globals["interval"] = numbers.interval
    return environment
