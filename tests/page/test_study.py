"""A study in the live page: its answer, its picture and its concepts."""

import pytest

pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from tests.page.test_live import Live
from tests.served import served
from tests.unit.test_controller_study import settled_study


@pytest.fixture
def live(chromium, tmp_path):
    simulation = settled_study(tmp_path / "state")
    with served(simulation.state, tmp_path, simulation.clock.now) as api:
        found = Live(chromium, api, viewport={"width": 390, "height": 800})
        yield found
        found.context.close()


def test_a_study_has_its_answer_a_picture_that_loads_and_concepts_that_lead_on(live):
    live.page.get_by_role("link", name="study/s", exact=True).click()
    live.page.get_by_text("5 of 5 concepts Ready, 5 testable").wait_for()
    assert "Supported." in live.page.locator("main").inner_text()
    picture = live.page.get_by_role("img", name="Each concept's difference")
    live.page.wait_for_function("document.querySelector('img.figure').complete")
    assert picture.evaluate("one => one.naturalWidth") > 0
    assert live.page.evaluate("document.documentElement.scrollWidth") <= 391
    rows = live.page.get_by_role("region", name="Concepts").locator("tbody tr")
    assert rows.count() == 5
    rows.get_by_role("link", name="cats", exact=True).click()
    live.page.get_by_role("heading", name="s-cats").wait_for()
    assert live.said == [] and all(one.startswith((live.address, "data:")) for one in live.asked)
