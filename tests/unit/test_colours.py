"""An answer has no colour, whichever it is: red is for what needs a human, and for nothing else."""

import io
import re
from pathlib import Path

import pytest
from rich.color import Color
from rich.console import Console

import loopscope.reports.page
from loopscope.reports.page.html import render_report
from loopscope.specs.keys import Key
from loopscope.specs.status import Condition, Status
from loopscope.terminal.live import progress_table
from loopscope.views.experiment import ExperimentView
from loopscope.views.progress import Row, Whole
from tests.unit.reports_case import NOW, build, set_status

CSS = (Path(loopscope.reports.page.__file__).parent / "templates" / "report.css").read_text()
WORDS = (
    *("GO", "NO-GO", "INCONCLUSIVE"),
    *("Supported", "Refuted", "NoPracticalDifference", "Inconclusive", "NotTestable"),
)


def test_the_report_gives_no_word_of_gate_and_verdict_a_look_of_its_own(tmp_path):
    page = render_report(ExperimentView.load(*build(tmp_path)))
    answers = re.findall(r'<div class="(answer(?: [^"]*)?)"[^>]*>', page)
    assert len(answers) == 3, "the gate twice, the verdict once"
    assert set(answers) == {"answer"}
    selectors = re.findall(r"([^{}]+)\{", CSS)
    named = [s for s in selectors for word in WORDS if re.search(rf"\b{word}\b", s)]
    assert named == []


def test_only_a_failure_is_red_in_the_report():
    rules = dict(re.findall(r"([^{}]+)\{([^{}]*)\}", CSS.replace(".ready {", "\n.ready {")))
    red = [selector.split()[-1] for selector, body in rules.items() if "color: var(--bad)" in body]
    assert red == [".failed"]


@pytest.mark.parametrize(("stalled", "look"), [("True", ' class="failed"'), ("False", "")])
def test_what_has_stalled_is_red_and_what_waits_is_not(tmp_path, stalled, look):
    state, key = build(tmp_path, stages=("capture", "coarse"))
    conditions = (
        Condition("Ready", "False", "UnsupportedModel", "why", 1, NOW),
        Condition("Stalled", stalled, "UnsupportedModel", "why", 1, NOW),
    )
    set_status(state, Key("Mapping", "default", "france-mapping"), Status(1, conditions, {}))
    page = render_report(ExperimentView.load(state, key))
    row = re.search(r'<tr><th scope="row">mapping</th>\s*<td([^>]*)>False', page)
    assert row is not None
    assert row.group(1) == look


@pytest.mark.parametrize("word", ["Running", "Ready", "Skipped", "Waiting", "Retrying", "Stalled"])
def test_on_a_terminal_nothing_is_red_but_what_has_stalled(word):
    row = Row(Key("Mapping", "default", "tiny-mapping"), word, "the gate says NO-GO", share=0.5)
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor")
    table = progress_table([row], Whole(1, 5, 0.3, 240.0, 0), 100, 24)
    colours = {
        segment.style.color
        for segment in console.render(table)
        if segment.style is not None and segment.style.color is not None
    }
    assert any(is_red(colour) for colour in colours) == (word == "Stalled")


def is_red(colour: Color) -> bool:
    shade = colour.get_truecolor()
    return shade.red > 100 and shade.red > 2 * shade.green
