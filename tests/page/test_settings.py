"""The sliders of the gate in a browser: each says what the rule in Python says there."""

import pytest

from loopscope.reports.page.html import render_report
from loopscope.specs.artifacts.mapping import GATE, GATE_SETTINGS
from loopscope.views.experiment import ExperimentView
from loopscope.views.gate_sensitivity import gate_by_settings, steering_note
from tests.page.test_exploring import Opened
from tests.unit.reports_case import build, experiment_spec
from tests.unit.reports_payloads import Sizes

DECLARED = {"minCosine": 0.3, "minCorrelation": 0.2, "maxQ": 0.05}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """An experiment whose mapping was asked for other settings, and its page."""
    gate = {**experiment_spec(Sizes(), True, {})["gate"], "sensitivity": True}
    folder = tmp_path_factory.mktemp("asked")
    view = ExperimentView.load(*build(folder, evidence=True, changes={"gate": gate}))
    path = folder / "report.html"
    path.write_text(render_report(view), encoding="utf-8", newline="\n")
    return view, path


@pytest.fixture
def page(chromium, asked):
    found = Opened(chromium, asked[1])
    yield found
    found.page.close()


def test_every_slider_says_what_the_rule_says_at_that_setting(page, asked):
    stage = asked[0].stage("mapping")
    gate = stage.document(GATE)
    settings = gate_by_settings(gate, stage.table(GATE_SETTINGS), DECLARED)
    cosines, qs = [0.3, 0.6, 0.7, 0.8], [0.05, 1.0]
    box = page.page.locator("#gate-settings")
    count, cosine, q = (box.locator("input").nth(n) for n in range(3))
    answer = box.locator(".answered")
    assert answer.inner_text().startswith(f"As declared: {gate['verdict']}; steered C-")
    told = set()
    for at, value in enumerate(cosines):
        for other, level in enumerate(qs):
            one = next(s for s in settings if (s.min_cosine, s.max_q) == (value, level))
            for children in (1, 3, 4):
                cosine.fill(str(at)), q.fill(str(other)), count.fill(str(children - 1))
                wanted = one.at(children)
                said = answer.inner_text()
                own = len(wanted.children)
                noun = "child" if own == 1 else "children"
                assert f": {wanted.verdict}; steered C-{wanted.anchor} with {own} {noun}" in said
                note = steering_note(wanted, gate, "report")
                assert (f"; {note}." in said) if note else ("needs" not in said)
                grey = box.locator(".answered.other-run").count()
                assert grey == page.count(".answer.other-run") == bool(note)
                told.add((wanted.verdict, bool(note)))
    assert {("GO", False), ("NO-GO", True)} <= told and len(told) > 2
    assert page.said == []


def test_the_lines_of_the_spec_are_those_of_the_sliders_that_moved(page):
    box = page.page.locator("#gate-settings")
    lines = box.locator("pre")
    assert not lines.is_visible()
    box.locator("input").nth(1).fill("2")
    box.locator("input").nth(2).fill("1")
    assert lines.inner_text() == "mapping: {minCosine: 0.7}\nselection: {maxQ: 1}"
    box.locator("button", has_text="as declared").click()
    assert not lines.is_visible()
    assert box.locator(".answered").inner_text().startswith("As declared")


def test_the_table_holds_each_field_alone_without_a_script(asked):
    page = render_report(asked[0], explorable=False)
    table = page[page.index('id="sensitivity-settings"') :].partition("</table>")[0]
    assert table.count("<tr") == 1 + 4 + 2
    assert table.count("(declared)") == 2
    assert "selection: {maxQ: 1.0}" in table and "mapping: {minCosine: 0.6}" in table
