"""Texts beside one another and rated blind, in a browser: what is hidden, what is saved."""

from __future__ import annotations

import json

import pytest

from loopscope.specs.artifacts.steering import SAMPLES
from loopscope.specs.ratings import read_ratings
from tests.page.test_exploring import Opened

COUNT = 5


def shuffled(items, seed):
    """The script's order: mulberry32 and Fisher-Yates."""
    state, bits = seed, 0xFFFFFFFF

    def times(a, b):
        return (a * b) & bits

    def following():
        nonlocal state
        state = (state + 0x6D2B79F5) & bits
        mixed = times(state ^ (state >> 15), state | 1)
        mixed ^= (mixed + times(mixed ^ (mixed >> 7), mixed | 61)) & bits
        return (mixed ^ (mixed >> 14)) / 2**32

    order = list(items)
    for last in range(len(order) - 1, 0, -1):
        other = int(following() * (last + 1))
        order[last], order[other] = order[other], order[last]
    return order


@pytest.fixture
def opened(chromium, place):
    found = Opened(chromium, place)
    yield found
    assert found.said == []
    found.page.close()


def begin(page, count=COUNT):
    page.get_by_label("Your name").fill("Anna")
    page.get_by_label("How many texts").fill(str(count))
    page.get_by_role("button", name="Rate blind").click()


def saved(page, name):
    with page.expect_download() as download:
        page.get_by_role("button", name=name).click()
    return download.value.path().read_text(encoding="utf-8")


def test_rated_by_keyboard_and_buttons_with_the_arms_hidden(opened, view):
    page = opened.page
    begin(page)
    assert page.locator("main > section:visible").count() == 1
    shown = []
    for number in range(COUNT):
        words = page.locator("#blind").inner_text()
        assert f"Text {number + 1} of {COUNT}" in words
        for arm in view.stage("steering").table(SAMPLES)["arm"].unique():
            assert f"{arm} at" not in words
        assert page.locator("#blind mark").count() == 0
        shown.append(page.locator("#blind .text").inner_text())
        if number == 1:
            page.keyboard.press("0")
            page.keyboard.press("ArrowLeft")
        if number % 2:
            page.get_by_role("button", name="No (0)").click()
        else:
            page.keyboard.press("1")
    found = read_ratings(saved(page, "Save as JSON"))
    assert (found.rater, found.experiment) == ("Anna", "france")
    assert found.steering == view.stage("steering").artifact.content_digest
    assert list(found.ratings.values()) == [1, 0, 1, 0, 1]
    assert f"seed {found.seed}" in page.locator("#blind").inner_text()
    assert read_ratings(saved(page, "Save as CSV")).ratings == found.ratings
    texts = view.stage("steering").table(SAMPLES)
    rows = texts.set_index(["prompt_id", "arm", "strength", "sample"])["text"]
    assert [rows[tuple(text)] for text in found.ratings] == shown
    page.get_by_role("button", name="Close").click()
    assert page.locator("#samples").is_visible()


def test_the_order_is_that_of_the_seed_that_is_shown_afterwards(opened):
    page = opened.page
    rows = page.evaluate(
        """[...document.querySelectorAll("details[data-opening] tr[data-arm]")].map((row) => [
          row.closest("details").dataset.opening, row.dataset.arm,
          Number(row.dataset.strength), Number(row.dataset.sample)])"""
    )
    begin(page)
    for _ in range(COUNT):
        page.keyboard.press("1")
    found = json.loads(saved(page, "Save as JSON"))
    order = [[r["prompt_id"], r["arm"], r["strength"], r["sample"]] for r in found["ratings"]]
    assert order == shuffled(rows, found["seed"])[:COUNT]


def test_one_opening_stands_in_columns_at_one_strength_with_its_next_tokens(opened):
    page = opened.page
    page.get_by_label("in columns").check()
    body = page.locator("#samples details[open] tbody").first
    assert body.evaluate("body => getComputedStyle(body).display") == "grid"
    page.get_by_label("Show one strength").select_option(index=1)
    wanted = page.get_by_label("Show one strength").input_value()
    shown = page.locator("#samples details[open] tr[data-strength]:visible")
    strengths = {shown.nth(n).get_attribute("data-strength") for n in range(shown.count())}
    assert {float(one) for one in strengths} == {0.0, float(wanted)}
    page.get_by_role("button", name="Next tokens", exact=True).first.click()
    assert page.locator("#samples table caption", has_text="Likeliest next tokens").is_visible()
