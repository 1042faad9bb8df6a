"""The report of a sweep in a browser: sorted by any column, narrowed to values of an axis."""

import pytest

from loopscope.reports.page.html import render_sweep
from loopscope.specs.keys import Key
from loopscope.state.db import objects
from loopscope.state.folder import open_state
from loopscope.views.sweeps import load_sweep
from tests.page.test_exploring import Opened
from tests.unit.test_reports_several import add, said

MATRIX = {"hook": {"low": {}, "high": {"hook": "b"}}, "concept": {"a": {}, "b": {"x": 1}}}
ESTIMATES = {"s-a-low": 0.3, "s-a-high": -0.2, "s-b-low": 0.05}


@pytest.fixture
def page(chromium, tmp_path):
    state, key = open_state(tmp_path / "state"), Key("Experiment", "default", "s")
    with state.database.write() as connection:
        objects.apply(connection, key, {"matrix": MATRIX}, now=0.0)
        owner = objects.get(connection, key)
    for number, (name, estimate) in enumerate(ESTIMATES.items()):
        add(state, name, said("Inconclusive", estimate), owner=owner, openings=6 + number)
    with state.database.read() as connection:
        text = render_sweep(load_sweep(connection, key))
    path = tmp_path / "sweep.html"
    path.write_text(text, encoding="utf-8", newline="\n")
    found = Opened(chromium, path)
    yield found
    found.page.close()


def shown(page):
    rows = page.page.locator("#grid tbody tr:not([hidden])")
    return rows.evaluate_all("rows => rows.map((row) => row.dataset.cell)")


def test_a_column_sorts_by_its_numbers_and_what_is_missing_stays_last(page):
    head = page.page.locator("#grid thead th", has_text="estimate")
    head.locator("button").click()
    assert shown(page) == ["s-a-high", "s-b-low", "s-a-low", "s-b-high"]
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").press("Enter")
    assert shown(page) == ["s-a-low", "s-b-low", "s-a-high", "s-b-high"]
    assert page.said == [] and len(page.asked) == 1


def test_axes_narrow_the_grid_together(page):
    lists = page.page.locator(".slider select")
    lists.nth(0).select_option("a")
    assert set(shown(page)) == {"s-a-low", "s-a-high"}
    lists.nth(1).select_option("low")
    assert shown(page) == ["s-a-low"]
    assert "1 of 4 cells shown" in page.page.locator("#grid-said").inner_text()
    lists.nth(0).select_option("")
    assert set(shown(page)) == {"s-a-low", "s-b-low"}


def test_each_effect_is_drawn_and_fits_a_narrow_window(page):
    assert page.count("td.effect svg") == 3
    page.page.set_viewport_size({"width": 390, "height": 800})
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 391
