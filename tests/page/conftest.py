"""A report in a browser: Playwright drives the Chromium of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopscope.reports.page.html import render_report
from loopscope.views.experiment import ExperimentView
from tests.unit.reports_case import build

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


def missing(what: str) -> None:
    """Fail under continuous integration, where nothing may be missing; elsewhere skip."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed: make test-page installs it")
    if CHROMIUM is None:
        missing("no chromium on the path: install the system's package")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def view(tmp_path_factory: pytest.TempPathFactory) -> ExperimentView:
    return ExperimentView.load(*build(tmp_path_factory.mktemp("state"), evidence=True, trace=True))


@pytest.fixture(scope="session")
def place(view: ExperimentView, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_report(view), encoding="utf-8", newline="\n")
    return path
