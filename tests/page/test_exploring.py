"""The report in a browser: what is linked, what is saved, and what never happens."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from loopscope.reports.page.html import render_report
from loopscope.specs.artifacts.evidence import FIRINGS
from loopscope.specs.artifacts.mapping import GATE, GATE_DRAWS, PAIRS
from loopscope.views.experiment import ExperimentView
from loopscope.views.gate_sensitivity import gate_by_min_subfeatures
from tests.unit.reports_payloads import HOSTILE


class Opened:
    """A page with everything that it said on its console and asked of the network."""

    def __init__(self, browser, path: Path, fragment: str = "", **options):
        self.page = browser.new_page(viewport={"width": 1000, "height": 900}, **options)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.said.append(m.text))
        self.page.on("pageerror", lambda e: self.said.append(str(e)))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.goto(f"file://{path}{fragment}")

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()


@pytest.fixture
def opened(chromium, place):
    found = Opened(chromium, place)
    yield found
    found.page.close()


@pytest.fixture
def pairs(view: ExperimentView):
    return view.stage("mapping").table(PAIRS)


def test_the_page_asks_for_itself_alone_and_has_nothing_to_say(opened, place):
    opened.page.wait_for_selector(".explore")
    assert opened.asked == [f"file://{place}"]
    assert opened.said == []


def test_hostile_texts_are_shown_as_text(opened):
    assert HOSTILE in opened.page.locator("#samples").inner_text()
    assert opened.count("script") == 2
    assert opened.count("img") == 0


def test_a_script_that_the_policy_does_not_name_does_not_run(chromium, place, tmp_path):
    page = place.read_text(encoding="utf-8")
    slipped = tmp_path / "slipped.html"
    slipped.write_text(
        page.replace("</main>", "<script>document.title = 'owned'</script></main>"),
        encoding="utf-8", newline="\n",
    )  # fmt: skip
    found = Opened(chromium, slipped)
    found.page.wait_for_selector(".explore")
    assert "owned" not in found.page.title()
    assert any("Content Security Policy" in line for line in found.said)


def test_back_and_forward_go_through_the_latents_that_were_chosen(opened):
    page, chosen = opened.page, ".explore select"
    values = page.locator(f"{chosen} option").evaluate_all("all => all.map((one) => one.value)")
    first, second = values[1], values[2]
    page.select_option(chosen, first)
    page.select_option(chosen, second)
    page.select_option(chosen, second)
    page.keyboard.press("Escape")
    for step, value in ((page.go_back, second), (page.go_back, first), (page.go_back, ""),
                        (page.go_forward, first)):  # fmt: skip
        step()
        page.wait_for_function(
            "value => document.querySelector('.explore select').value === value", arg=value
        )
        assert page.evaluate("location.hash") == (f"#{value}" if value else "")
        assert (opened.count(".dim") > 0) is bool(value)
    page.reload()
    page.wait_for_selector(".explore")
    assert page.locator(chosen).input_value() == first


def test_a_link_shows_one_latent_and_escape_all(chromium, place, pairs):
    coarse = int(pairs["coarse"].iloc[0])
    own = pairs[pairs["coarse"] == coarse]
    found = Opened(chromium, place, f"#latent=coarse/{coarse}")
    found.page.wait_for_selector(".explore")
    rows = "#mapping details tr[data-coarse]"
    shown = found.count(f"{rows}:not([hidden])")
    assert 0 < shown <= len(own)
    assert found.count(f'{rows}[data-coarse="{coarse}"][hidden]') == 0
    assert found.count(f'svg circle[data-coarse="{coarse}"].dim') == 0
    assert found.count("svg .dim") > 0
    found.page.keyboard.press("Escape")
    assert found.count(".dim") == found.count("tr[hidden]") == 0
    assert "#" not in found.page.url


def test_a_mark_that_is_clicked_chooses_its_latent_everywhere(opened, pairs):
    mark = opened.page.locator("#mapping svg circle[data-coarse][data-fine]").first
    coarse = mark.get_attribute("data-coarse")
    mark.click()
    assert opened.page.url.endswith(f"#latent=coarse/{coarse}")
    assert opened.page.locator(".explore select").input_value() == f"latent=coarse/{coarse}"


def test_a_latent_is_chosen_by_keyboard_alone(opened):
    opened.page.locator(".explore select").focus()
    opened.page.keyboard.press("ArrowDown")
    assert "#latent=coarse/" in opened.page.url
    assert "Showing what belongs to coarse latent" in opened.page.locator(".explore p").inner_text()


@pytest.mark.parametrize("mark", ["circle", "rect.heat"])
def test_under_the_pointer_stand_the_prompts_on_which_both_fire(opened, mark):
    mark = opened.page.locator(f"#mapping svg {mark}[data-coarse][data-fine]").first
    mark.scroll_into_view_if_needed()
    mark.hover()
    words = opened.page.locator(".under").inner_text()
    assert "cosine" in words
    assert "Both fire on:" in words or "no prompt on which both fire" in words


def test_a_table_is_saved_as_it_is_shown(opened, tmp_path):
    button = opened.page.locator("#anchors .save button").first
    with opened.page.expect_download() as waiting:
        button.click()
    path = tmp_path / "table.csv"
    waiting.value.save_as(path)
    with path.open(newline="") as stream:
        rows = list(csv.reader(stream))
    table = opened.page.locator("#anchors .scroll table").first
    assert len(rows) == table.locator("tr").count()
    assert rows[0] == [cell.strip() for cell in table.locator("thead th").all_inner_texts()]


def test_kept_pairs_are_saved_whole_with_unrounded_numbers(opened, pairs, tmp_path):
    figure = opened.page.locator("#mapping figure", has=opened.page.locator("svg circle")).last
    with opened.page.expect_download() as waiting:
        figure.locator("button", has_text="CSV").click()
    path = tmp_path / "pairs.csv"
    waiting.value.save_as(path)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(pairs)
    assert [float(row["cosine"]) for row in rows] == pytest.approx(pairs["cosine"].tolist())


def test_a_heatmap_is_saved_with_all_its_cells(opened, pairs, tmp_path):
    figure = opened.page.locator("#mapping figure", has=opened.page.locator("svg rect.heat")).first
    with opened.page.expect_download() as waiting:
        figure.locator("button", has_text="CSV").click()
    path = tmp_path / "cells.csv"
    waiting.value.save_as(path)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    anchors, fine = {row["coarse"] for row in rows}, {row["fine"] for row in rows}
    assert len(rows) == len(anchors) * len(fine) > len(pairs)
    found = {(int(row["coarse"]), int(row["fine"])): float(row["value"]) for row in rows}
    for row in pairs.itertuples():
        if (row.coarse, row.fine) in found:
            assert found[row.coarse, row.fine] == pytest.approx(row.cosine, abs=1e-5)


def test_the_slider_of_the_gate_gives_what_python_gives_and_greys_another_steering(opened, view):
    stage = view.stage("mapping")
    ranges = gate_by_min_subfeatures(stage.document(GATE), stage.table(GATE_DRAWS))
    declared = stage.document(GATE)["minSubfeatures"]
    line = opened.page.locator("#gate .slider")
    assert "(as declared): GO" in line.locator("output").inner_text()
    for one in ranges:
        line.locator("input").fill(str(one.low))
        said = line.locator("output").inner_text()
        own = " (as declared)" if one.low == declared else ""
        assert said.startswith(f"{one.low}{own}: {one.verdict}")
        moved = one.anchor != stage.document(GATE)["steered"]
        assert ("needs another steering run" in said) == moved
    assert {one.verdict for one in ranges} == {"GO", "NO-GO"}


def test_tokens_are_coloured_by_their_activation_and_say_it(opened, view):
    table = view.stage("evidence").table(FIRINGS)
    latent = opened.page.locator("#latents details").first
    row = latent.locator("tbody tr").first
    strongest, weaker = row.locator(".f9"), row.locator("td.tokens span").first
    own = table[
        (table["side"] == "coarse") & (table["latent"] == int(latent.get_attribute("data-coarse")))
    ]
    assert float(strongest.get_attribute("title")) == pytest.approx(
        own["activation"].max(), rel=5e-3
    )
    colour = "element => getComputedStyle(element).backgroundColor"
    assert strongest.evaluate(colour) != weaker.evaluate(colour) != "rgba(0, 0, 0, 0)"
    assert row.locator("td").nth(3).inner_text().startswith(strongest.inner_text().strip())


def test_a_control_is_chosen_as_any_latent_is(opened):
    control = opened.page.locator("#latents details").last.get_attribute("data-coarse")
    opened.page.locator(".explore select").select_option(f"latent=coarse/{control}")
    assert opened.count("#latents details:not([hidden])") == 1
    assert (
        opened.page.locator("#latents details:not([hidden]) summary").inner_text().startswith("C-")
    )


@pytest.mark.parametrize("kind", ["SVG", "PNG"])
def test_a_picture_is_saved(opened, tmp_path, kind):
    with opened.page.expect_download() as waiting:
        opened.page.locator("#mapping figure button", has_text=kind).first.click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    begins = {"SVG": b"<svg", "PNG": b"\x89PNG"}[kind]
    assert path.read_bytes().startswith(begins)


def test_an_arm_that_is_unticked_has_no_samples_shown(opened):
    opened.page.locator("#samples .arms input").first.uncheck()
    arm = opened.page.locator("#samples .arms label").first.inner_text().strip()
    assert opened.count(f'#samples tr[data-arm="{arm}"]:not([hidden])') == 0
    assert opened.count("#samples tr[data-arm]:not([hidden])") > 0


def test_without_scripts_every_figure_is_there(chromium, view, tmp_path):
    path = tmp_path / "static.html"
    path.write_text(render_report(view, explorable=False), encoding="utf-8", newline="\n")
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{path}")
    assert page.locator(".explore").count() == 0
    assert page.locator("figure svg").count() > 8
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1000])
def test_no_page_is_wider_than_its_window(chromium, place, scheme, width):
    found = Opened(chromium, place, color_scheme=scheme)
    found.page.set_viewport_size({"width": width, "height": 800})
    wide = found.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width + 1


def test_nothing_serious_stands_in_the_way_of_assistive_technology(opened):
    from axe_playwright_python.sync_playwright import Axe  # comes with playwright, or fails

    found = Axe().run(opened.page)
    serious = [
        (one["id"], one["nodes"][0]["html"][:120])
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_a_heading_that_one_jumps_to_is_not_behind_the_bar(opened):
    opened.page.wait_for_selector(".explore")
    opened.page.locator("nav a[href='#latents']").click()
    bar = opened.page.locator(".explore").bounding_box()
    heading = opened.page.locator("#latents-title").bounding_box()
    assert heading["y"] >= bar["y"] + bar["height"]
