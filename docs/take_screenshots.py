"""Photograph the pages in ``docs/images``: ``python docs/take_screenshots.py``.

After ``make demo``: the report's first screen, texts on their way through its navigator, and the
page of an experiment on `loopscope serve` are those of its run (``--state``, ``--experiment``).
What the live page shows while much is going on is simulated by the tests' own world. Needs what
`make test-page` installs, and a Chromium on the path. Look at each picture before you commit it.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from loopscope.reports.page.html import render_report
from loopscope.specs.keys import Key
from loopscope.state.db import pauses
from loopscope.state.folder import open_state
from loopscope.views.experiment import ExperimentView

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.served import TOKEN, served
from tests.simulated import Simulation, experiment_spec, texts

IMAGES = Path(__file__).parent / "images"
SCALE, QUALITY, SECONDS_MAX = 1.5, 0.86, 400
FOLDER = "study/.loopscope"
"""What stands for the state folder's path, which belongs to one machine."""
HIDE = """path => document.querySelectorAll("#folder").forEach((one) => {
  one.textContent = path;
})"""
ENCODE = """async ([data, quality]) => {
  const image = new Image();
  image.src = `data:image/png;base64,${data}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL("image/webp", quality).split(",")[1];
}"""


def main() -> None:
    """Write all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, default=Path(".loopscope"))
    parser.add_argument("--experiment", default="france")
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        size = {"width": 1040, "height": 1010}
        page = browser.new_page(viewport=size, device_scale_factor=SCALE)
        page.set_default_timeout(SECONDS_MAX * 1_000)
        _report(page, given.state, given.experiment, Path(folder))
        with _serving(given.state) as address:
            _experiment(page, address, given.experiment)
        _now(page, Path(folder))
        browser.close()


def _report(page: Page, state: Path, name: str, folder: Path) -> None:
    view = ExperimentView.load(open_state(state), Key("Experiment", "default", name))
    path = folder / "report.html"
    path.write_text(render_report(view), encoding="utf-8", newline="\n")
    page.goto(f"file://{path}")
    page.wait_for_selector(".explore")
    _save(page, "report", {"x": 0, "y": 0, "width": 1040, "height": 1010})
    page.set_viewport_size({"width": 1040, "height": 1200})
    page.locator("#paths-title").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('.explore').style.position = 'static'")
    title = page.locator("#paths-title")
    page.mouse.wheel(0, (title.bounding_box() or {"y": 0})["y"] - 20)
    page.get_by_label("Step").fill("16")
    page.get_by_label("Step").blur()
    page.wait_for_timeout(500)
    top = (title.bounding_box() or {"y": 0})["y"] - 12
    _save(page, "paths", {"x": 20, "y": top, "width": 1000, "height": 1000})


@contextmanager
def _serving(state: Path) -> Iterator[str]:
    """Serve a state folder; give the page's address with its token."""
    command = [sys.executable, "-m", "loopscope", "--state", str(state), "serve", "--no-tls"]
    process = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        yield next(line.split()[1] for line in lines if line.startswith("page:"))
    finally:
        process.terminate()
        process.wait()


def _experiment(page: Page, address: str, name: str) -> None:
    page.set_viewport_size({"width": 1040, "height": 1000})
    page.goto(address)
    page.wait_for_selector("#connection[data-state=live]")
    page.evaluate("place => { location.hash = place; }", f"#/object/Experiment/default/{name}")
    page.frame_locator("main iframe").locator(".lede").wait_for()
    page.wait_for_timeout(2_000)
    _save(page, "live", {"x": 0, "y": 0, "width": 1040, "height": 1000})


def _now(page: Page, folder: Path) -> None:
    """Photograph a simulated state: one experiment needs a human, one runs, one is paused."""
    simulation = Simulation(folder / "state")
    simulation.clock.time = time.time() - 9_000
    for name, about in (("france", "Paris is"), ("weather", "It rains in")):
        simulation.apply(_spec(about), name=name)
        simulation.settle()
    simulation.workers.failures["steering"] = ("BudgetNotMet", False)
    simulation.apply(_spec("A coin"), name="coin-toss")
    simulation.settle()
    simulation.workers.failures.clear()
    simulation.clock.time = time.time() - 120
    with simulation.state.database.write() as connection:
        pauses.pause(connection, "experiment/default/rome", now=simulation.clock.now())
    simulation.apply(_spec("Rome is"), name="rome")
    simulation.apply(_spec("Oslo is"), name="oslo")
    for _ in range(3):
        simulation.step()
    simulation.clock.time = time.time()
    with served(simulation.state, folder, simulation.clock.now, poll_seconds=0.2) as api:
        page.goto("about:blank")
        page.set_viewport_size({"width": 1040, "height": 860})
        page.goto(f"http://127.0.0.1:{api.port}/#token={TOKEN}")
        page.wait_for_selector("table.tree tbody tr")
        page.get_by_role("button", name="What coin-toss owns").click()
        page.wait_for_selector("table.tree td.depth-1")
        page.wait_for_timeout(1_500)
        _save(page, "live-now", {"x": 0, "y": 0, "width": 1040, "height": 860})


def _spec(about: str) -> dict[str, Any]:
    sets = {"target": texts(about, "and more"), "neutral": texts("Bern is", "Kiel is")}
    return experiment_spec(prompts=sets)


def _save(page: Page, name: str, clip: Any) -> None:
    page.evaluate(HIDE, FOLDER)
    shot = base64.b64encode(page.screenshot(clip=clip)).decode()
    blank = page.context.browser.new_page()  # the pages' own policies let them draw nothing
    encoded = blank.evaluate(ENCODE, [shot, QUALITY])
    blank.close()
    (IMAGES / f"{name}.webp").write_bytes(base64.b64decode(encoded))


if __name__ == "__main__":
    main()
