"""Asking the model in the live page: a form, a place in the queue, an answer that is text."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from loopscope.state.db import objects
from tests.answered import answer, asked_in_process
from tests.page.test_live import Live
from tests.served import served
from tests.unit.reports_case import build


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return build(tmp_path_factory.mktemp("asked"))[0]


@pytest.fixture
def live(chromium, state, tmp_path):
    limits = {"writable": True, "poll_seconds": 0.05}
    with asked_in_process(), served(state, tmp_path, time.time, **limits) as api:
        found = Live(chromium, api, "ask/default/france")
        found.page.wait_for_selector(
            '#what option[value="multi"]', state="attached", timeout=60_000
        )
        yield found
        assert found.said == []
        found.context.close()


def asked(state, live):
    """Send the form and return the question once it is in the queue."""
    live.page.get_by_role("button", name="Ask", exact=True).click()
    live.page.get_by_text("In the queue:").wait_for(timeout=60_000)
    with state.database.read() as connection:
        waiting = [one for one in objects.listed(connection, "Question") if not one.ready]
    (one,) = waiting
    return one.key.name


def test_a_text_is_coloured_by_the_latents_that_fire_on_it(live, state):
    live.page.get_by_label("Text, or the opening").fill("We met in <b>Paris</b>")
    answer(state, asked(state, live), time.time())
    live.page.locator(".ask .fire5").wait_for(timeout=60_000)
    assert live.page.locator(".ask .fire5").inner_text().strip() == "<b>Paris</b>"
    assert live.page.locator(".ask b").count() == 0
    assert "Silent on this text" in live.page.locator(".ask").inner_text()


def test_an_opening_goes_on_under_an_arm_beside_unsteered(live, state):
    live.page.get_by_label("Text, or the opening").fill("We met in")
    live.page.get_by_label("Ask", exact=True).select_option("multi")
    assert live.page.get_by_label("at", exact=True).is_enabled()
    answer(state, asked(state, live), time.time())
    live.page.locator(".ask .beside mark").wait_for(timeout=60_000)
    words = live.page.locator(".ask .beside").inner_text()
    assert "unsteered" in words and "multi at" in words and "<b>now</b>" in words
    assert live.page.locator(".ask .beside mark").inner_text() == "Paris"


def test_a_server_that_only_reads_says_how_to_ask(chromium, state, tmp_path):
    with served(state, tmp_path, time.time) as api:
        found = Live(chromium, api, "ask")
        found.page.get_by_text("loopscope serve --write lets the page ask").wait_for()
        assert found.page.locator("form").count() == 0
        found.context.close()
