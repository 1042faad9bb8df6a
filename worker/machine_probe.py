"""The probe of a machine: the rates of one product and one copy, a quarter of a second.

A worker makes it before a job, at most once an hour, and the better of what was and what is stays:
much else may run beside. What it finds enters nothing but estimates: sizes of blocks and batches
never depend on it. ``python -m loopscope.worker.machine_probe`` forgets what was.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from loopscope.inputs.files import default_cache
from loopscope.state.machine_rates import MachineRates, read_rates, write_rates
from loopscope.worker.runner import torch_can_use, torch_threads

PRODUCT = (2048, 640, 2048)
"""Rows, inner width and columns: the product that the benchmarks compare with."""
COPIED_BYTES = 2**26
ROUNDS = 3
AGAIN_SECONDS = 3600.0


def probe(device: str, now: float) -> MachineRates:
    """Return what this device does at best of a few rounds; ``now`` in Unix seconds."""
    rows, inner, columns = PRODUCT
    left = torch.full((rows, inner), 0.5, device=device)
    right = torch.full((inner, columns), 0.5, device=device)
    source = torch.zeros(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    product = _best(lambda: left @ right, device)
    copy = _best(lambda: target.copy_(source), device)
    flops = 2 * rows * inner * columns / product
    return MachineRates(flops, 2 * COPIED_BYTES / copy, torch.get_num_threads(), now)


def keep_rates(cache: Path, device: str, now: float) -> None:
    """Record the rates of this machine, the better of the last and those of now.

    Not again within an hour; a cache that cannot be written is left as it is.
    """
    if not torch_can_use(device):
        return
    last = read_rates(cache, device)
    if last is not None and last.threads == torch.get_num_threads():
        if 0 <= now - last.measured_at < AGAIN_SECONDS:
            return
    else:
        last = None
    found = probe(device, now)
    if last is not None:
        flops, bandwidth = max(found.flops, last.flops), max(found.bandwidth, last.bandwidth)
        found = replace(found, flops=flops, bandwidth=bandwidth)
    with contextlib.suppress(OSError):
        write_rates(cache, device, found)


def _best(run: Callable[[], object], device: str) -> float:
    run()
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return max(min(seconds), 1e-9)


def main() -> None:
    """Measure, record and print the rates."""
    parser = argparse.ArgumentParser(prog="python -m loopscope.worker.machine_probe")
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    torch.set_num_threads(torch_threads())
    found = probe(device, time.time())
    write_rates(default_cache(), device, found)
    sys.stdout.write(
        f"{device}: {found.flops / 1e9:.0f} GFLOP/s with {found.threads} threads, "
        f"{found.bandwidth / 1e9:.0f} GB/s\n"
    )


if __name__ == "__main__":
    main()
