"""Wide dictionaries, measured: decompositions, geometry and mappings of two concepts.

``python -m benchmarks.wide_dictionaries --folder /tmp/wide`` writes two random JumpReLU
dictionaries (by default 16,384 and 262,144 latents of 2,304 numbers, the fine one as ``.npz``:
16 GB with its copy) and random rows in the place of a model's, and runs the stages on them as a
worker does. Printed are the seconds of each, its products as a share of what the processor does in
the same processor time with one product of that size, and the peak of memory of its own
(``RssAnon``) and of all that is resident (``VmRSS``), both above what the stage began with. Shares
rest on processor time, because wall time on a shared machine says who else was there, and on
products right before and after the stage, because even processor time depends on that. The folder
is removed at the end.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from safetensors.numpy import save_file

from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.specs.artifacts.capture import CALIBRATION, CAPTURED_PROMPTS, REFERENCE, RESIDUAL
from loopscope.specs.artifacts.decomposition import FEATURES
from loopscope.specs.rules import Gate, Selection
from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.worker.context import StageContext
from loopscope.worker.dictionaries import load_dictionary
from loopscope.worker.runner import torch_threads
from loopscope.worker.shards import Shards
from loopscope.worker.stages.decomposition import stage as decomposition
from loopscope.worker.stages.geometry import stage as geometry
from loopscope.worker.stages.mapping import stage as mapping
from loopscope.worker.stages.tables import read_columns, write_table

ROWS_PER_BLOCK = 4_096
SAMPLE_SECONDS = 0.02
MEBIBYTE = 2**20


@dataclass
class Memory:
    """The peak of this process's memory, in bytes, sampled by a thread."""

    anonymous: int = 0
    resident: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    @staticmethod
    def now() -> tuple[int, int]:
        """Return (RssAnon, VmRSS)."""
        found = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        anonymous, resident = (1024 * int(found[name].split()[0]) for name in ("RssAnon", "VmRSS"))
        return anonymous, resident

    def watch(self) -> None:
        """Sample until ``_ended`` is set, and once before."""
        while True:
            anonymous, resident = Memory.now()
            self.anonymous = max(self.anonymous, anonymous)
            self.resident = max(self.resident, resident)
            if self._ended.wait(SAMPLE_SECONDS):
                return


@contextmanager
def watched() -> Iterator[Memory]:
    """Sample memory while the block runs."""
    memory = Memory()
    thread = threading.Thread(target=memory.watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        memory._ended.set()
        thread.join()


@dataclass
class Bench:
    """A folder with dictionaries, rows and what the stages made of them."""

    folder: Path
    coarse: int
    fine: int
    width: int
    prompts: int
    text: int
    json: bool = False
    profile: str = ""
    measured: dict[str, dict[str, float]] = field(default_factory=dict)
    warm: dict[str, Any] = field(default_factory=dict)

    def dictionary(self, ref: Any) -> Any:
        """Return a loaded dictionary, as a warm worker keeps it."""
        if ref["identity"] not in self.warm:
            self.warm[ref["identity"]] = load_dictionary(ref)
        return self.warm[ref["identity"]]

    def out(self, stage: str, name: str) -> Path:
        """Return the folder of an artifact."""
        path = self.folder / stage / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def context(self, name: str) -> StageContext:
        """Return what a stage is given."""

        def no_model(ref: Any) -> Any:
            raise AssertionError("no stage here runs a model")

        return StageContext(
            device="cpu",
            model=no_model,
            dictionary=self.dictionary,
            artifact=self.out,
            shards=Shards(ShardFolder(self.folder / "shards" / name)),
            progress=lambda *_: None,
        )

    def timed(self, name: str, flop: float, run: Callable[[], Any]) -> Any:
        """Run a stage and print what it took."""
        rate = self.product_rate() if flop else 0.0
        before = Memory.now()
        began, cpu = time.monotonic(), time.process_time()
        profiler = cProfile.Profile() if name == self.profile else nullcontext()
        with watched() as memory, profiler:
            result = run()
        if isinstance(profiler, cProfile.Profile):
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(25)
        seconds, used = time.monotonic() - began, time.process_time() - cpu
        rate = (rate + self.product_rate()) / 2 if flop else 0.0
        reached = flop / rate / used if flop else None
        share = f"{reached:5.0%}" if reached is not None else "    -"
        anonymous, resident = (
            (now - then) / MEBIBYTE
            for now, then in zip((memory.anonymous, memory.resident), before, strict=True)
        )
        self.measured[name] = {
            "seconds": round(seconds, 2),
            "processor": round(used, 2),
            "anonymous MiB": round(anonymous),
            "resident MiB": round(resident),
            **({"percent": round(100 * reached, 1), "flops": rate} if reached is not None else {}),
        }
        print(
            f"{name:32} {seconds:8.1f} s {used:8.1f} s cpu {share} of GEMM "
            f"{anonymous:8.0f} MiB anonymous {resident:8.0f} MiB resident",
            file=sys.stderr if self.json else sys.stdout,
            flush=True,
        )
        return result

    def product_rate(self) -> float:
        """Return FLOP per second of processor time of products as in the geometry, of nine."""
        left, right = torch.randn(2_048, self.width), torch.randn(4_096, self.width)
        left @ right.T
        began = time.process_time()
        for _ in range(9):
            left @ right.T
        return 9 * 2 * 2_048 * 4_096 * self.width / (time.process_time() - began)

    def write_dictionary(self, name: str, latents: int, active: float, *, npz: bool) -> Any:
        """Write random unit rows whose latents fire on ``active`` of the rows of a concept."""
        generator = np.random.default_rng(len(name))
        rows = np.empty((latents, self.width), dtype=np.float32)
        for start in range(0, latents, ROWS_PER_BLOCK):
            block = generator.standard_normal((ROWS_PER_BLOCK, self.width), dtype=np.float32)
            block /= np.linalg.norm(block, axis=1, keepdims=True)
            rows[start : start + ROWS_PER_BLOCK] = block[: latents - start]
        threshold = float(scipy.stats.norm.isf(min(active / latents, 0.25)))
        arrays = {
            "W_dec": rows,
            "W_enc": np.ascontiguousarray(rows.T),
            "b_enc": np.zeros(latents, dtype=np.float32),
            "b_dec": np.zeros(self.width, dtype=np.float32),
            "threshold": np.full(latents, threshold, dtype=np.float32),
        }
        if npz:
            path = self.folder / f"{name}.npz"
            np.savez(path, **arrays)
            return describe_dictionary({"path": str(path)}).ref
        path = self.folder / name
        path.mkdir()
        (path / "cfg.json").write_text(json.dumps(self.config(latents)))
        save_file(arrays, path / "sae_weights.safetensors")
        return describe_dictionary({"path": str(path)}).ref

    def config(self, latents: int) -> dict[str, Any]:
        """Return the SAELens config of a JumpReLU dictionary."""
        return {
            "architecture": "jumprelu",
            "d_in": self.width,
            "d_sae": latents,
            "dtype": "float32",
            "apply_b_dec_to_input": False,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {"sae_lens_version": "6.54.0", "hook_name": "blocks.1.hook_resid_post"},
        }

    def write_capture(self, name: str, seed: int) -> None:
        """Write random rows, half of them target, in the place of what a model shows."""
        generator = np.random.default_rng(seed)
        rows = generator.standard_normal((self.prompts, self.width), dtype=np.float32)
        is_target = np.arange(self.prompts) < self.prompts // 2
        concept = generator.standard_normal((5, self.width), dtype=np.float32)
        rows[is_target] += 0.3 * concept.sum(axis=0)
        text = np.random.default_rng(0).standard_normal((self.text, self.width), dtype=np.float32)
        numbers = np.arange(self.prompts, dtype=np.int32)
        out = self.out("capture", name)
        tensors = {"residual": rows, "prompt_index": numbers, "position": np.ones_like(numbers)}
        save_file(tensors, out / RESIDUAL.name)
        save_file({"residual": text}, out / CALIBRATION.name)
        few = {"residual": rows[:2], "prompt_index": numbers[:2]}
        save_file(few, out / REFERENCE.name)
        columns = {
            "prompt_id": [f"p{number}" for number in numbers],
            "text": ["text"] * self.prompts,
            "condition": np.where(is_target, "target", "neutral"),
            "n_tokens": np.ones(self.prompts, dtype=int),
            "last_token": ["text"] * self.prompts,
        }
        write_table(out, CAPTURED_PROMPTS, columns)

    def decompose(self, concept: str, side: str, ref: Any) -> None:
        """Run the stage for one side of a concept."""
        payload: Any = {
            "capture": {"digest": concept},
            "dictionary": ref,
            "aggregation": "last",
            "splits": ["discover"] * self.prompts,
        }
        name = f"{concept}-{side}"
        flop = 2.0 * (self.prompts + self.text) * self.width * ref["d_sae"]
        out, context = self.out("decomposition", name), self.context(name)
        self.timed(f"decomposition {name}", flop, lambda: decomposition.run(payload, context, out))

    def compare(self, pair: dict[str, Any]) -> None:
        """Run the geometry of the two dictionaries."""
        payload: Any = pair
        pairs = self.coarse * self.fine + self.coarse**2 + self.width * self.fine
        out, context = self.out("geometry", "g"), self.context("g")
        self.timed(
            "geometry", 2.0 * pairs * self.width, lambda: geometry.run(payload, context, out)
        )

    def map(self, concept: str, pair: dict[str, Any]) -> None:
        """Run the mapping of a concept: its five most selective coarse latents."""
        table = read_columns(self.out("decomposition", f"{concept}-coarse") / FEATURES.name)
        best = np.argsort(-table["selectivity"] * table["firing_rate_target"], kind="stable")[:5]
        payload: Any = {
            "capture": {"digest": concept},
            "geometry": {"digest": "g"},
            "coarse": {
                "digest": f"{concept}-coarse",
                "dictionary": pair["coarse"],
                "candidates": best.tolist(),
            },
            "fine": {"digest": f"{concept}-fine", "dictionary": pair["fine"]},
            "selection": Selection().canonical(),
            "minCosine": 0.3,
            "partialCosine": 0.1,
            "minCorrelation": 0.2,
            "topK": 10,
            "permutations": 1000,
            "seed": 0,
            "gate": Gate().canonical(),
        }
        out, context = self.out("mapping", concept), self.context(f"map-{concept}")
        self.timed(f"mapping {concept}", 0.0, lambda: mapping.run(payload, context, out))


def main() -> None:
    """Write the dictionaries, run the stages, remove the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="must not exist yet")
    parser.add_argument("--coarse", type=int, default=16_384)
    parser.add_argument("--fine", type=int, default=262_144)
    parser.add_argument("--width", type=int, default=2_304)
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--text", type=int, default=5_000, help="tokens of calibration text")
    parser.add_argument("--profile", default="", help="also where the time of this stage goes")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    os.environ["LOOPSCOPE_CACHE"] = str(options.folder / "cache")
    torch.set_grad_enabled(False)
    bench = Bench(**vars(options))
    torch.set_num_threads(torch_threads())
    try:
        measure(bench)
    finally:
        shutil.rmtree(options.folder)


def measure(bench: Bench) -> None:
    """Print one line a stage."""
    rate = f"{bench.product_rate() / 1e9:.0f} GFLOP a second of processor time"
    where = sys.stderr if bench.json else sys.stdout
    print(f"{torch.get_num_threads()} threads, one product: {rate}", file=where, flush=True)
    refs = {
        "coarse": bench.write_dictionary("coarse", bench.coarse, 83, npz=False),
        "fine": bench.write_dictionary("fine", bench.fine, 124, npz=True),
    }
    for side, ref in refs.items():
        bench.timed(f"loading {side}", 0.0, lambda ref=ref: bench.dictionary(ref))
    for number, concept in enumerate(("first", "second")):
        bench.write_capture(concept, number)
        for side, ref in refs.items():
            bench.decompose(concept, side, ref)
        if concept == "first":
            bench.compare(refs)
        bench.map(concept, refs)
    if bench.json:
        print(json.dumps({"stages": bench.measured}))


if __name__ == "__main__":
    main()
