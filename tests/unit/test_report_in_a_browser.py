"""Hostile prompts in a real browser: shown as text, nothing runs, nothing is requested."""

import shutil
import subprocess

import pytest

from loopscope.reports.page.html import render_report
from loopscope.views.experiment import ExperimentView
from tests.unit.reports_case import build
from tests.unit.reports_payloads import HOSTILE
from tests.unit.test_reports_page import parsed, scripts

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
ALIVE = "<p id='alive'>the page was parsed to its end</p>"
PROOF = "<script>document.title = 'scripts run here'</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return render_report(ExperimentView.load(*build(tmp_path_factory.mktemp("case"))))


@pytest.fixture(scope="module")
def dom(tmp_path_factory):
    """Return a function from a page to the document that a browser makes of it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed: no real browser to ask")
    folder = tmp_path_factory.mktemp("browser")

    def dump(html):
        (folder / "page.html").write_text(html, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/user"]
        command = [browser, *options, "--dump-dom", f"file://{folder}/page.html"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if not ended.stdout:
            pytest.skip(f"{browser} does not start here: {ended.stderr[-300:]}")
        return ended.stdout

    return dump


def test_the_browser_of_this_test_does_run_scripts(dom):
    assert "<title>scripts run here</title>" in dom(f"<title>x</title>{PROOF}")


def test_hostile_texts_are_text_in_a_real_browser(page, dom):
    seen = dom(page.replace("</body>", f"{ALIVE}</body>"))
    elements = parsed(seen)
    tags = [tag for tag, _ in elements.found]
    assert not set(tags) & {"img", "iframe", "object", "embed"}
    assert [content for _, content in scripts(seen)] == [content for _, content in scripts(page)]
    assert tags.count("script") == 2, "the page's data and its script, and none of a prompt's"
    assert "the page was parsed to its end" in seen
    assert "".join(elements.text).count(HOSTILE) > 3
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)


def test_even_a_script_that_got_into_the_page_would_not_run(page, dom):
    """The second wall: the page's own content security policy."""
    seen = dom(page.replace("</body>", f"{PROOF}{ALIVE}</body>"))
    assert "the page was parsed to its end" in seen
    assert "<title>scripts run here</title>" not in seen
