"""An ablation on the page: own latents beside matched ones, answers, and what to do without."""

import re

import pytest

from loopscope.reports.page.html import render_report
from loopscope.reports.tables.listing import listing
from loopscope.views.ablation import ASKING, ablation
from loopscope.views.experiment import ExperimentView
from tests.unit.reports_ablation import ANSWERS, CONTROLS, DRAWS, LOSS, PARTS
from tests.unit.reports_case import NOW, build


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return ExperimentView.load(*build(tmp_path_factory.mktemp("state"), ablation=True))


@pytest.fixture(scope="module")
def section(view):
    return part_of(render_report(view))


def part_of(page):
    return page.partition('<section id="ablation"')[2].partition("</section>")[0]


def test_each_set_of_latents_is_a_dot_and_the_own_ones_have_an_interval(section):
    picture = section.partition("<svg")[2].partition("</svg>")[0]
    assert picture.count('class="dot arm-random"') == len(PARTS) * len(CONTROLS) * DRAWS
    assert picture.count("<line") and picture.count("whisker arm-") == len(PARTS)


def test_the_answers_stand_in_words(section):
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', section)
    assert dict(rows[: len(PARTS)]) == ANSWERS
    assert "held-out target prompts" in section and "#latent=coarse/1" in section


def test_the_view_has_means_over_prompts(view):
    own = {one.part: one.loss for one in ablation(view).lost if not one.control}
    assert own == pytest.approx(LOSS)


def test_the_listing_has_losses_and_answers(view):
    table = listing("Ablation", [view.stage("ablation").record], now=NOW)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["ANCHOR"] == "0.500 (used)"


def test_an_experiment_that_does_not_ask_for_it_says_what_to_do(tmp_path):
    found = ExperimentView.load(*build(tmp_path))
    assert ablation(found).problem == ASKING
    assert "ablation: {}" in part_of(render_report(found))
