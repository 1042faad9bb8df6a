"""How fast two threads multiply when a thread that waits for the other soon sleeps, and when not.

Run with ``.venv/bin/python benchmarks/waiting.py [rounds]`` (default 3), once alone and once beside
other work: that is what makes the difference. A step is 18 small layers of the demo's shape with 64
rows, as in decoding. Settings take turns, each in a process of its own, since libgomp reads its
environment once. Printed are steps a second by the clock and processor time a step.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from loopscope.state.child_processes import SPINS

SECONDS = 6.0
SETTINGS: dict[str, dict[str, str]] = {
    "libgomp's own": {},
    "a worker's": {"GOMP_SPINCOUNT": SPINS},
    "none (passive)": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def steps() -> None:
    """Multiply for some seconds, and print the two rates."""
    import torch

    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    rows = torch.randn(64, 640)
    weights = [torch.randn(640, 2_048) for _ in range(18)]
    began, used, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < SECONDS:
        passed = rows
        for weight in weights:
            inner = torch.nn.functional.gelu(passed @ weight)
            passed = torch.nn.functional.rms_norm(inner @ weight.T, (640,))
        done += 1
    rate = done / (time.perf_counter() - began)
    print(f"{rate:6.2f} steps/s  {1000 * (time.process_time() - used) / done:7.1f} ms a step")


def main() -> None:
    """Let the settings take turns."""
    for _ in range(int(sys.argv[1]) if sys.argv[1:] else 3):
        for name, setting in SETTINGS.items():
            print(f"load {os.getloadavg()[0]:4.1f}  {name:15}", end=" ", flush=True)
            child = [sys.executable, __file__, "--steps"]
            subprocess.run(child, env={**os.environ, **setting}, check=True)


if __name__ == "__main__":
    steps() if sys.argv[1:] == ["--steps"] else main()
