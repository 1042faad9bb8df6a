"""The page of a comparison in a browser: readable wherever it is read, and without a script."""

from dataclasses import replace

import pytest

from loopscope.reports.page.html import render_comparison
from loopscope.views.comparison import Match, compare
from loopscope.views.history import Change
from tests.page.test_exploring import Opened
from tests.unit.reports_case import build
from tests.unit.reports_payloads import HOSTILE

LONG = [f"a text that is one of many, number {number}" for number in range(300)]


@pytest.fixture
def path(tmp_path):
    state, key = build(tmp_path)
    view = compare(state, key, key)
    coarse, fine = view.latents
    apart = replace(
        coarse, how="not matched", note="other dictionaries", only_second=(7, 8),
        matches=tuple(Match(one.first, None, None) for one in coarse.matches),
    )  # fmt: skip
    spec = (Change("prompts.target.texts", LONG, [HOSTILE]), Change("maxTokens", 64, None))
    found = tmp_path / "compared.html"
    page = render_comparison(replace(view, spec=spec, latents=(apart, fine)))
    found.write_text(page, encoding="utf-8", newline="\n")
    return found


def test_the_answer_stands_first_and_the_spec_last(chromium, path):
    found = Opened(chromium, path)
    heads = found.page.locator("h2").all_inner_texts()
    assert heads[0] == "What came out" and heads[-2:] == ["Spec", "What not to conclude"]
    words = found.page.locator(".lede").all_inner_texts()
    assert words[0] == "experiment/france: gate GO, verdict Inconclusive."
    assert words[-1] == "Their specs differ in 2 fields."
    assert "Anchors: other dictionaries." in found.page.locator(".notice").all_inner_texts()
    assert found.said == [] and found.asked == [f"file://{path}"]
    found.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1000])
def test_it_fits_its_window_and_bars_nobody(chromium, path, scheme, width):
    from axe_playwright_python.sync_playwright import Axe  # comes with playwright, or fails

    found = Opened(chromium, path, color_scheme=scheme)
    found.page.set_viewport_size({"width": width, "height": 800})
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width + 1
    assert found.page.evaluate("document.documentElement.scrollHeight") < 12_000
    serious = [
        one["id"]
        for one in Axe().run(found.page).response["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []
    found.page.close()
