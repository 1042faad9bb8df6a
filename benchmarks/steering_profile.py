"""Where the time of a steering stage goes: seconds of each phase, and the rate of a large product.

Runs the stage anew on the artifacts that an experiment left in a state folder, with its own payload
and the first openings of it, outside of the job queue. Prints processor and wall seconds of each
phase that the stage reports. Run it from two checkouts in turns to compare them.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from loopscope.state.artifacts.publication import verified_folder
from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.state.folder import open_state
from loopscope.worker.context import StageContext
from loopscope.worker.shards import Shards
from loopscope.worker.stages.steering import stage
from loopscope.worker.warm import WarmInputs


@dataclass
class Phases:
    """Seconds [processor, wall] of each phase, from one report to the next."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    _phase: str = "LoadingModel"
    _at: tuple[float, float] = field(default_factory=lambda: (time.process_time(), time.time()))

    def __call__(self, phase: str, *_numbers: object) -> None:
        """Count the time since the last report for the phase that was then under way."""
        now = time.process_time(), time.time()
        for kind in (0, 1):
            self.seconds[self._phase][kind] += now[kind] - self._at[kind]
        self._phase, self._at = phase, now


def payload_of(state: Path, openings: int) -> dict[str, Any]:
    """Return the payload of the state's last steering job, cut to the first openings (0: all)."""
    with sqlite3.connect(f"file:{state / 'state.db'}?mode=ro", uri=True) as connection:
        rows = connection.execute("select payload from jobs where stage = 'steering' order by id")
        found: dict[str, Any] = json.loads(rows.fetchall()[-1][0])
    if openings > len(found["openings"]):
        raise SystemExit(f"the run in {state} has {len(found['openings'])} openings only")
    found["openings"] = found["openings"][: openings or None]
    return found


def gemm_rate() -> float:
    """Return GFLOP/s of a product 2048 x 640 x 2048, the best of nine."""
    a, b = torch.randn(2048, 640), torch.randn(640, 2048)
    times = []
    for _ in range(9):
        began = time.process_time()
        torch.mm(a, b)
        times.append(time.process_time() - began)
    return 2 * 2048 * 640 * 2048 / min(times) / 1e9


def main() -> None:
    """Print the seconds of each phase and their sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path)
    parser.add_argument("--openings", type=int, default=0, help="the first of them; 0: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--out", type=Path, help="keep the tables in this new folder")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    state, warm, phases = open_state(arguments.state), WarmInputs(), Phases()
    payload = payload_of(arguments.state, arguments.openings)
    warm.model(payload["model"], "cpu", lambda *_: None)
    rate = gemm_rate()
    if not arguments.json:
        words = f"{rate:.0f} GFLOP/s of processor time, {arguments.threads} threads"
        print(f"large product: {words}")
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder) / "out"
        out.mkdir()
        context = StageContext(
            device="cpu",
            model=lambda ref: warm.model(ref, "cpu", phases),
            dictionary=lambda ref: warm.dictionary(ref, phases),
            artifact=partial(verified_folder, state),
            shards=Shards(ShardFolder(Path(folder) / "shards")),
            progress=phases,
        )
        phases("Preparing")
        stage.run(payload, context, out)  # type: ignore[arg-type]
        phases("End")
    if arguments.json:
        walls = {phase: round(wall, 2) for phase, (_, wall) in phases.seconds.items()}
        print(json.dumps({"GFLOP/s": rate, "wall": walls}))
        return
    for phase, (processor, wall) in phases.seconds.items():
        print(f"{phase:24} {processor:8.1f} s processor {wall:8.1f} s wall")
    total = [sum(pair[kind] for pair in phases.seconds.values()) for kind in (0, 1)]
    print(f"{'sum':24} {total[0]:8.1f} s processor {total[1]:8.1f} s wall")


if __name__ == "__main__":
    main()
