"""Prompts in the plane, in a browser: every prompt once, the numbers Python's."""

import pyarrow.parquet
import pytest

from loopscope.views.navigator import navigator
from tests.page.test_exploring import Opened


@pytest.fixture
def opened(chromium, place):
    found = Opened(chromium, place)
    yield found
    found.page.close()


def test_every_prompt_is_one_dot_and_says_its_text(opened, view):
    seen = navigator(view)
    figure = opened.page.locator("#navigator figure").first
    assert figure.locator("circle[data-prompt]").count() == len(seen.prompt_id)
    tip = figure.locator("circle[data-prompt] title").first
    assert tip.text_content().startswith(f"{seen.prompt_id[0]}: ")
    colour = "element => getComputedStyle(element).fill"
    conditions = [figure.locator(f"circle.condition-{c}").first for c in ("target", "neutral")]
    assert len({one.evaluate(colour) for one in conditions}) == 2
    assert "cannot show" in opened.page.locator("#navigator").inner_text()
    assert opened.said == []


def test_the_plane_is_saved_with_the_numbers_of_python(opened, view, tmp_path):
    button = opened.page.locator("#navigator figure button", has_text="Parquet").first
    with opened.page.expect_download() as waiting:
        button.click()
    waiting.value.save_as(tmp_path / "plane.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "plane.parquet").to_pandas()
    seen = navigator(view)
    assert tuple(table["prompt_id"]) == seen.prompt_id
    assert table[["x", "y"]].to_numpy() == pytest.approx(seen.planes[0].points, rel=1e-5)
