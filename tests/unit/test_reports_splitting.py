"""A splitting graph on the page: levels, edges, fates, and what to do without one."""

import re

import pytest

from loopscope.reports.page.figures.splitting import SHOWN_MAX, Level, splitting_picture
from loopscope.reports.page.html import render_report
from loopscope.reports.tables.listing import listing
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import MISSING
from loopscope.views.splitting import ASKING, GraphEdge, GraphLatent, splitting
from tests.unit.reports_case import NOW, build


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return ExperimentView.load(*build(tmp_path_factory.mktemp("state"), splitting=True))


@pytest.fixture(scope="module")
def section(view):
    return part_of(render_report(view))


def part_of(page):
    return page.partition('<section id="splitting"')[2].partition("</section>")[0]


def test_direct_edges_are_drawn_and_those_that_few_halves_have_are_dashed(section):
    picture = section.partition("<svg")[2].partition("</svg>")[0]
    edges = re.findall(r"<path[^>]*>", picture)
    assert len(edges) == 2
    assert ["stroke-dasharray" in edge for edge in edges] == [False, True]
    assert picture.count("<circle") == 5


def test_the_fates_stand_in_words_beside_what_chance_makes(section):
    rows = re.findall(r'<th scope="row">.*?(\d+)</a></th><td>(.*?)</td><td>(.*?)</td>', section)
    assert ("1", "split", "0, 2") in rows and ("2", "lost", MISSING) in rows
    assert ("4", "born", MISSING) in rows
    assert "3 edges, 2 of them direct" in section and "1.0 on average" in section


def test_the_listing_has_the_fates(view):
    table = listing("Splitting", [view.stage("splitting").record], now=NOW)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["COARSE"] == "1 split, 1 lost" and row["FINE"] == "2 part, 1 born"
    assert (row["EDGES"], row["BY-CHANCE"]) == ("3", "1.0")


def test_an_experiment_that_does_not_ask_for_it_says_what_to_do(tmp_path):
    found = ExperimentView.load(*build(tmp_path))
    assert splitting(found).problem == ASKING
    assert "splitting: {}" in part_of(render_report(found))


def test_three_levels_are_one_picture_and_long_levels_are_cut():
    def level(name, count):
        return Level(
            name, {n: GraphLatent(name, n, True, "kept", 1, 0.0, 0.5) for n in range(count)}
        )

    edges = [[GraphEdge(0, n, 0.5, 0.5, True, False, 1.0) for n in range(SHOWN_MAX + 3)], []]
    picture = splitting_picture([level("a", 1), level("b", SHOWN_MAX + 5), level("c", 2)], edges)
    assert picture.count("<circle") == 1 + SHOWN_MAX + 2
    assert "and 5 more" in picture
    assert picture.count("<path") == SHOWN_MAX
