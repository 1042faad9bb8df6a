"""A report on wide dictionaries: seconds to write it, its size, and how fast it answers a click.

``python benchmarks/report_size.py [--fine 262144] [--prompts 400] [--browser]``. The artifacts are
made up: the latents that the tests' experiment shows, beside as many others as wanted, which fire
at random. ``--browser`` needs Playwright and a Chromium on the path (`make test-page`).
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow
import pyarrow.parquet
from safetensors.numpy import load_file, save_file

from loopscope.reports.page.html import render_report
from loopscope.views.experiment import ExperimentView

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.unit import reports_case
from tests.unit.reports_payloads import Payloads, Sizes

FIRING = 80
"""Latents that fire on a prompt beside those that are shown."""


def widened(table: pyarrow.Table, rows: int, number: str) -> pyarrow.Table:
    """Return the table with its last row repeated up to ``rows``; ``number`` counts them."""
    rest = table.take(pyarrow.array(np.full(rows - table.num_rows, table.num_rows - 1)))
    whole = pyarrow.concat_tables([table, rest]).combine_chunks()
    place = whole.column_names.index(number)
    return whole.set_column(place, number, pyarrow.array(np.arange(rows, dtype=np.int64)))


class Wide(Payloads):
    """The tests' experiment beside many other latents."""

    latents: ClassVar = {"coarse": 16_384, "fine": 262_144}

    def _widen(self, path: Path, rows: int, number: str) -> None:
        table = pyarrow.parquet.read_table(path)
        pyarrow.parquet.write_table(widened(table, rows, number), path, compression="zstd")

    def _decomposition(self, side: str, out: Path) -> dict[str, Any]:
        metrics = super()._decomposition(side, out)
        wide = self.latents[side]
        self._widen(out / "features.parquet", wide, "latent")
        tensors = load_file(out / "activations.safetensors")
        own, rng = int(tensors["shape"][1]), np.random.default_rng(1)
        indices, values = [], []
        for start, end in zip(tensors["indptr"], tensors["indptr"][1:], strict=False):
            others = np.sort(rng.choice(wide - own, FIRING, replace=False)) + own
            indices += [tensors["indices"][start:end], others]
            values += [tensors["values"][start:end], rng.random(FIRING)]
        tensors |= {
            "indices": np.concatenate(indices).astype(np.int32),
            "values": np.concatenate(values).astype(np.float32),
            "indptr": tensors["indptr"] + FIRING * np.arange(len(tensors["indptr"])),
            "shape": np.array([len(tensors["indptr"]) - 1, wide], dtype=np.int64),
        }
        save_file(tensors, out / "activations.safetensors")
        return {**metrics, "d_sae": wide}

    def _mapping(self, side: str, out: Path) -> dict[str, Any]:
        metrics = super()._mapping(side, out)
        self._widen(out / "coarse_summary.parquet", self.latents["coarse"], "coarse")
        return metrics


CLICKS = {
    "choose a latent": "list.selectedIndex = 1; list.dispatchEvent(new Event('change'))",
    "show all": "list.value = ''; list.dispatchEvent(new Event('change'))",
    "move a slider": "slider.value = slider.max; slider.dispatchEvent(new Event('input'))",
}
"""What is done in the page."""
DONE = """() => {{
  const list = document.querySelector(".explore select");
  const slider = document.querySelector("#gate-settings input");
  {act};
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}}"""
"""Do it, and wait until the frame that shows it has been drawn."""


def opened(page: Path) -> dict[str, tuple[float, float]]:
    """Return milliseconds by what was done: of the page's thread, and by the clock."""
    from playwright.sync_api import sync_playwright

    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page()
        session = tab.context.new_cdp_session(tab)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})

        def processor() -> float:
            metrics = session.send("Performance.getMetrics")["metrics"]
            return next(float(m["value"]) for m in metrics if m["name"] == "TaskDuration")

        def timed(act: Callable[[], object]) -> tuple[float, float]:
            start, used = time.monotonic(), processor()
            act()
            return 1000 * (processor() - used), 1000 * (time.monotonic() - start)

        def first() -> None:
            tab.goto(f"file://{page}")
            tab.wait_for_selector(".explore")

        found["open"] = timed(first)
        for what, act in CLICKS.items():
            found[what] = timed(functools.partial(tab.evaluate, DONE.format(act=act)))
        browser.close()
    return found


def main() -> None:
    """Make the artifacts, write the report, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fine", type=int, default=262_144)
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--browser", action="store_true")
    asked = parser.parse_args()
    Wide.latents = {"coarse": min(16_384, asked.fine), "fine": asked.fine}
    reports_case.Payloads = Wide  # type: ignore[misc]
    sizes = Sizes(prompts=asked.prompts // 2, d_model=2_304, coarse=64, fine=512, openings=126)
    gate = {**reports_case.experiment_spec(sizes, True, {})["gate"], "sensitivity": True}
    with tempfile.TemporaryDirectory() as folder:
        made = reports_case.build(
            Path(folder), sizes=sizes, evidence=True, trace=True, changes={"gate": gate}
        )
        wall, processor = time.monotonic(), time.process_time()
        page = render_report(ExperimentView.load(*made))
        took = time.monotonic() - wall, time.process_time() - processor
        path = Path(folder) / "report.html"
        path.write_text(page, encoding="utf-8", newline="\n")
        print(f"written in {took[0]:.1f} s ({took[1]:.1f} s of processor time)")
        print(f"{path.stat().st_size / 1e6:.2f} MB")
        if asked.browser:
            for what, (used, seen) in opened(path).items():
                print(f"{what}: {used:.0f} ms of the page's thread, {seen:.0f} ms by the clock")


if __name__ == "__main__":
    main()
