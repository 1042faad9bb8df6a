"""A drift on the page: curves with bands and rings, half-lives in words, and what to do without."""

import re

import pytest

from loopscope.reports.page.html import render_report
from loopscope.reports.tables.listing import listing
from loopscope.specs.payloads.drift import ANCHORS
from loopscope.views.drift import ASKING, drift, half_life_words
from loopscope.views.experiment import ExperimentView
from tests.unit.reports_case import NOW, build
from tests.unit.reports_drift import DISTANCES, NEAR, TEMPERATURES, effect
from tests.unit.reports_payloads import HOSTILE


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return ExperimentView.load(*build(tmp_path_factory.mktemp("state"), drift=True))


@pytest.fixture(scope="module")
def section(view):
    page = render_report(view)
    assert HOSTILE not in page
    return page.partition('<section id="drift"')[2].partition("</section>")[0]


def test_every_mean_of_the_curve_is_a_dot_and_every_repeated_anchor_a_ring(section):
    first = section.partition("<svg")[2].partition("</svg>")[0]
    assert len(re.findall(r'class="dot anchor-', first)) == len(ANCHORS) * len(DISTANCES)
    assert len(re.findall(r'class="ring anchor-', first)) == 2
    assert len(re.findall(r'class="band anchor-', first)) == len(ANCHORS)
    assert "systemPrompt at distance 100: 0.2 (0.19 to 0.21)" in first


def test_a_table_says_half_lives_in_words(section):
    near = section.partition("Anchors near and far")[2].partition("</table>")[0]
    rows = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', near, flags=re.S)
    assert len(rows) == 2 * len(ANCHORS)
    said = dict(rows[: len(ANCHORS)])
    assert set(said) == set(ANCHORS)
    assert "100 (80 to 1,234)" in said["systemPrompt"]
    assert "not reached (not reached to not reached)" in said["steering"]


def test_the_grid_has_a_row_for_each_anchor_and_temperature(view, section):
    grid = section.partition("Temperature by anchor")[2]
    assert grid.count('<th scope="row">') == (len(ANCHORS) + 1) * len(TEMPERATURES)
    assert len(drift(view).grid) == (len(ANCHORS) + 1) * len(TEMPERATURES)


def test_what_never_had_an_effect_has_no_half_life(view):
    outcome = drift(view).told["outcomes"][0]
    assert half_life_words({**outcome, "fade": "no effect"}) == "no effect to be halved"
    assert outcome["near"] == NEAR["systemPrompt"] == effect("systemPrompt", 0)


def test_the_listing_has_the_half_lives(view):
    table = listing("Drift", [view.stage("drift").record], now=NOW)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["SYSTEMPROMPT"] == "100" and row["STEERING"] == "not reached"


def test_an_experiment_that_does_not_ask_for_it_says_what_to_do(tmp_path):
    found = ExperimentView.load(*build(tmp_path))
    assert drift(found).problem == ASKING
    page = render_report(found)
    assert "drift: {}" in page.partition('<section id="drift"')[2].partition("</section>")[0]
