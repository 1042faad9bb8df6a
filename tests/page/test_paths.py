"""Texts on their way through the plane, in a browser: played, scrubbed, and by keyboard."""

import csv

import pytest

from loopscope.views.navigator import navigator
from tests.page.test_exploring import Opened

FIGURE = "#navigator svg[data-plane='0']"


@pytest.fixture
def opened(chromium, place):
    found = Opened(chromium, place)
    yield found
    assert found.said == []
    found.page.close()


def places(page, selector=FIGURE):
    return page.locator(f"{selector} circle[data-step]").evaluate_all(
        "dots => dots.map(dot => [dot.getAttribute('cx'), dot.getAttribute('cy')].map(Number))"
    )


def told(page):
    return page.locator("#paths-told dd").all_inner_texts()


def test_the_script_draws_what_python_drew(chromium, place, opened):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{place}")
    for number in (0, 1):
        figure = f"#navigator svg[data-plane='{number}']"
        drawn = places(opened.page, figure)
        assert len(drawn) == 16
        assert drawn == [pytest.approx(one, abs=0.011) for one in places(page, figure)]
    assert told(page) == told(opened.page)
    context.close()


def test_one_goes_step_by_step_with_the_keyboard_alone(opened):
    page = opened.page
    slider = page.get_by_label("Step")
    assert slider.input_value() == "3"
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator(f"{FIGURE} circle[data-step]").count() == 4
    assert all(" " not in text.strip() for text in told(page)), "one token of each arm"
    page.keyboard.press("ArrowRight")
    assert page.locator(f"{FIGURE} circle[data-step]").count() == 8
    assert slider.get_attribute("aria-valuetext").startswith("step 1: none ")
    page.get_by_role("button", name="Back").focus()
    page.keyboard.press("Enter")
    assert slider.input_value() == "0"
    page.get_by_role("button", name="Forward").click()
    assert page.locator("#paths output").inner_text() == "step 1 of 3"


def test_it_plays_to_the_end_and_stops(opened):
    page = opened.page
    page.get_by_role("button", name="Play").click()
    assert page.get_by_role("button", name="Pause").is_visible()
    page.get_by_role("button", name="Play").wait_for(timeout=10_000)
    assert page.get_by_label("Step").input_value() == "3"


def test_a_hand_on_the_slider_stops_it(opened):
    page = opened.page
    page.get_by_role("button", name="Play").click()
    page.get_by_label("Step").fill("1")
    assert page.get_by_role("button", name="Play").is_visible()
    assert page.get_by_label("Step").input_value() == "1"


def test_nothing_moves_by_itself_where_the_system_asks_for_that(chromium, place):
    found = Opened(chromium, place, reduced_motion="reduce")
    assert not found.page.get_by_role("button", name="Play").is_visible()
    assert "Nothing moves by itself" in found.page.locator("#paths").inner_text()
    found.page.get_by_label("Step").fill("1")
    assert found.page.locator("#paths output").inner_text() == "step 1 of 3"
    found.page.close()


def test_arms_and_openings_are_chosen(opened):
    page = opened.page
    page.locator("#paths").get_by_label("coarse").uncheck()
    assert page.locator(f"{FIGURE} circle.arm-coarse").count() == 0
    page.locator("#paths").get_by_label("random-0").check()
    assert page.locator(f"{FIGURE} circle.arm-random").count() == 4
    page.get_by_label("Opening", exact=True).select_option(index=1)
    assert page.locator("#paths-opening").inner_text() == "We met in 1"
    assert told(page)[0].strip().startswith("1")


def test_without_its_vector_an_arm_begins_where_the_unsteered_text_does(opened, view):
    page = opened.page
    box = page.get_by_label("without the vector that the arm adds")
    before = places(page)
    box.check()
    without = places(page)
    assert without != before
    first = navigator(view).planes[0].paths[:4]
    moved = [one.path.steered[0] for one in first]
    for arm, steered in enumerate(moved):
        assert (without[4 * arm] != before[4 * arm]) == steered


def test_the_steps_are_saved_with_the_numbers_of_python(opened, view, tmp_path):
    picture = opened.page.locator("svg[data-plane='0']")
    figure = opened.page.locator("#navigator figure", has=picture)
    with opened.page.expect_download() as waiting:
        figure.locator("button", has_text="CSV").click()
    waiting.value.save_as(tmp_path / "paths.csv")
    with (tmp_path / "paths.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    paths = navigator(view).planes[0].paths
    assert len(rows) == sum(len(one.path.tokens) for one in paths)
    found = [[float(row["x"]), float(row["y"])] for row in rows]
    expected = [row for one in paths for row in one.behind.tolist()]
    assert found == [pytest.approx(row, rel=1e-5, abs=1e-12) for row in expected]
