"""A trace on the page: steered tokens one by one, paths in both planes, and what to do without."""

import re

import numpy as np
import pytest

from loopscope.reports.page.html import render_report
from loopscope.specs.artifacts.trace import SAMPLE_TOKENS, STEPS, STREAM
from loopscope.state.artifacts.store import Corrupt
from loopscope.views.experiment import ExperimentView
from loopscope.views.navigator import navigator
from loopscope.views.tensors import read_tensors
from loopscope.views.trace import ASKING, cut, followed
from tests.unit.reports_case import build

ARMS = ("none", "coarse", "fine", "multi", "random-0", "random-1", "random-2")


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return ExperimentView.load(*build(tmp_path_factory.mktemp("state"), trace=True))


@pytest.fixture(scope="module")
def pages(view):
    return {explorable: render_report(view, explorable=explorable) for explorable in (True, False)}


def part(page, name):
    return page.partition(f'<section id="{name}"')[2].partition("</section>")[0]


def test_a_path_is_the_stream_about_the_mean_of_the_prompts(view):
    stream = read_tensors(view.stage("trace").path(STREAM.name))
    steps = view.stage("trace").table(STEPS)
    seen = navigator(view)
    assert len(seen.planes) == 2
    residual = read_tensors(view.stage("capture").path("residual.safetensors"))["residual"]
    assert [path.path.arm for path in seen.planes[0].paths] == list(ARMS) * 2
    for plane in seen.planes:
        start = 0
        for one in plane.paths:
            stop = start + len(one.path.tokens)
            moved = stream["steered"][start:stop] - stream["residual"][start:stop]
            assert one.behind - one.before == pytest.approx(
                moved @ _basis(view, plane, residual).T, abs=1e-5
            )
            length = np.linalg.norm(moved, axis=1)
            assert length == pytest.approx(one.path.strength, abs=1e-6)
            start = stop
        assert start == len(steps)
        assert 0 < plane.seen <= 1


def _basis(view, plane, residual):
    """The axes of a plane, found again from its points."""
    centred = (residual - residual.mean(axis=0)).astype(float)
    return np.linalg.lstsq(centred, plane.points, rcond=None)[0].T


def test_single_children_have_an_arrow_beside_the_arms(view):
    plane = navigator(view).planes[0]
    (child,) = plane.children
    arm = next(one for one in plane.arrows if one.name == "fine")
    assert child.name == "F-0" and (child.x, child.y) == pytest.approx((arm.x, arm.y))


def test_every_steered_token_of_a_sample_is_marked_and_no_other(view, pages):
    texts = view.stage("trace").table(SAMPLE_TOKENS)
    for page in pages.values():
        rows = re.findall(r"<tr data-arm.*?</tr>", part(page, "samples"), flags=re.S)
        assert sum(row.count("<i>") for row in rows) == int(texts["steered"].sum()) > 0
        unsteered = [row for row in rows if 'data-arm="none"' in row]
        assert unsteered and not any("<i>" in row for row in unsteered)
        assert 'class="long drawn"' not in page and "underlined" in page


def test_the_opening_is_shown_as_it_was_read(view, pages):
    read = re.findall(r'<p class="read">.*?</span> (.*?)</p>', part(pages[True], "samples"))
    assert len(read) == 3
    assert read[1] == "<i>We</i><i> met</i><i> in</i><i> 1</i>"


def test_without_a_script_the_first_opening_is_drawn_under_the_main_arms(pages):
    section = part(pages[False], "navigator")
    assert section.count('class="path-line') == 2 * 4
    assert section.count("data-step=") == 2 * 4 * 4, "two planes, four arms, four steps"
    assert section.count("<dt") == 4


def test_the_page_is_the_same_byte_for_byte(view, pages):
    assert render_report(view) == pages[True]


def test_an_experiment_that_does_not_ask_for_it_says_what_to_do(tmp_path):
    found = ExperimentView.load(*build(tmp_path))
    assert followed(found).problem == cut(found).problem == ASKING
    page = render_report(found)
    assert "trace: {}" in part(page, "navigator") and "loopscope run FILE" in part(page, "samples")
    assert 'class="long drawn"' in page, "a steered text is marked as a whole"
    assert "data-plane" not in page.partition("<script")[0]


def test_a_stream_with_other_rows_than_steps_is_corrupt(tmp_path):
    found = ExperimentView.load(*build(tmp_path, trace=True))
    path = found.stage("trace").folder / STREAM.name
    data = bytearray(path.read_bytes())
    cut_short = data.replace(b'"shape":[56,6]', b'"shape":[28,12]')
    assert cut_short != data
    path.write_bytes(cut_short)
    with pytest.raises(Corrupt):
        followed(found)
