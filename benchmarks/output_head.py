"""The output head with the choice of a token: whole logits, blocks in cache, bfloat16 first.

Random weights of 262,144 tokens by 640; the three ways take turns in one process, and each must
name the same 50 tokens. Shares are of the rate of a product 2048 x 640 x 2048 in the same process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from loopscope.numerics.model.causal_model import OutputHead
from loopscope.numerics.model.logits import LargestLogits, Rough

VOCABULARY, WIDTH, KEPT = 262_144, 640, 50
Way = Callable[[Tensor], tuple[Tensor, Tensor]]


def whole(head: OutputHead, states: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest logits from all of them, rows by vocabulary."""
    values, tokens = torch.topk(head(states), KEPT)
    return values, tokens


def seconds(run: Callable[[], object]) -> float:
    """Return the processor seconds of one call."""
    began = time.process_time()
    run()
    return time.process_time() - began


def main() -> None:
    """Print milliseconds, ratio and share of the rate of a large product for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[20, 80, 160])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    head = OutputHead(torch.randn(VOCABULARY, WIDTH, generator=generator) / WIDTH**0.5)
    ways: dict[str, Way] = {
        "whole logits": partial(whole, head),
        "blocks": partial(LargestLogits(head), k=KEPT),
        "bfloat16 first": partial(LargestLogits(head, Rough.of(head.weight)), k=KEPT),
    }
    a, b = torch.randn(2048, WIDTH), torch.randn(WIDTH, 2048)
    for rows in arguments.rows:
        states = 3 * torch.randn(rows, WIDTH, generator=generator)
        expected = ways["whole logits"](states)[1]
        spent: dict[str, list[float]] = {name: [] for name in ways}
        rates = []
        for _ in range(arguments.rounds):
            rates.append(2 * 2048 * WIDTH * 2048 / seconds(partial(torch.mm, a, b)))
            for name, way in ways.items():
                spent[name].append(seconds(partial(way, states)))
        for name, way in ways.items():
            same = float((way(states)[1] == expected).float().mean())
            share = 2 * VOCABULARY * WIDTH * rows / min(spent[name]) / max(rates)
            ratio = statistics.median(spent["whole logits"]) / statistics.median(spent[name])
            print(
                f"rows {rows:4}  {name:15} {1e3 * statistics.median(spent[name]):7.0f} ms  "
                f"ratio {ratio:5.2f}  share of rate {share:5.2f}  same tokens {same:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
