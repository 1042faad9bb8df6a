"""Residuals of a model at one hook, without the tokens that are skipped and without padding.

The hook is the output of a decoder layer. The layers behind it are dropped before the forward pass,
and no logits are computed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import Sequence
from numpy.typing import NDArray
from subjects import Subject

from loopscope.inputs.packages import find_packaged_gguf

BATCH_TOKENS = 1024
MAX_NORM = 2.5  # in medians; longer rows are dropped from training

Rows = NDArray[np.float32]


def packaged_gguf(package: str, folder: Path) -> Path:
    """The package's one GGUF file; written to `folder` where it is shipped in parts."""
    found = find_packaged_gguf(package)
    if len(found.parts) == 1:
        return found.parts[0]
    whole = folder / found.name
    with whole.open("wb") as file:
        for part in found.parts:
            file.write(part.read_bytes())
    return whole


def convert_model(subject: Subject, folder: Path) -> Path:
    """Write the embedded model as a normal Hugging Face folder in float32, once."""
    if (folder / "config.json").exists():
        return folder
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf = packaged_gguf(subject.package, folder.parent)
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    if digest != subject.gguf_sha256:
        raise SystemExit(f"{gguf.name} has sha256 {digest}, expected {subject.gguf_sha256}")
    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load_truncated(folder: Path, layer: int) -> Any:
    """The model's body with the layers up to and including `layer`."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
    model.layers = model.layers[: layer + 1]
    return model


def batches(
    sequences: list[Sequence],
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Right-padded ids, mask and what is wanted, [batch, length] each, longest sequences first."""
    order = sorted(sequences, key=lambda one: len(one.ids), reverse=True)
    start = 0
    while start < len(order):
        length = len(order[start].ids)
        part = order[start : start + max(1, BATCH_TOKENS // length)]
        start += len(part)
        ids = torch.zeros((len(part), length), dtype=torch.int64)
        mask, wanted = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        for row, one in enumerate(part):
            ids[row, : len(one.ids)] = torch.tensor(one.ids)
            mask[row, : len(one.ids)] = 1
            wanted[row, one.skipped : len(one.ids)] = True
        yield ids, mask, wanted


@torch.inference_mode()
def residuals(model: Any, sequences: list[Sequence], log: bool = False) -> Rows:
    """Raw residuals at the last layer of every token that counts, [tokens, d_model] float32."""
    caught: list[torch.Tensor] = []

    def keep(_module: Any, _args: Any, output: Any) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output)

    handle = model.layers[-1].register_forward_hook(keep)
    parts: list[Rows] = []
    done, started, shown = 0, time.monotonic(), 0.0
    total = sum(one.counted for one in sequences)
    try:
        for ids, mask, wanted in batches(sequences):
            caught.clear()
            model(input_ids=ids, attention_mask=mask, use_cache=False)
            if len(caught) != 1:
                raise RuntimeError(f"the layer ran {len(caught)} times in one pass")
            parts.append(caught[0][wanted].numpy())
            done += len(parts[-1])
            seconds = time.monotonic() - started
            if log and seconds - shown > 30:
                shown = seconds
                print(f"capture {done:,}/{total:,} tokens, {done / seconds:.0f}/s", flush=True)
    finally:
        handle.remove()
    return np.concatenate(parts)


def _part(job: tuple[Path, int, list[Sequence], Path]) -> Path:
    folder, layer, sequences, target = job
    torch.set_num_threads(1)
    np.save(target, residuals(load_truncated(folder, layer), sequences, log=True))
    return target


def residuals_parallel(
    folder: Path, layer: int, sequences: list[Sequence], processes: int, scratch: Path
) -> Rows:
    """Like `residuals`, in `processes` single-threaded processes; the order of rows differs.

    On a shared machine two such processes are far faster than one with two threads, which
    wait for each other at every matrix product.
    """
    jobs = [
        (folder, layer, sequences[part::processes], scratch / f"part-{part}.npy")
        for part in range(processes)
    ]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        files = list(pool.map(_part, jobs))
    rows: Rows = np.concatenate([np.load(file) for file in files])
    for file in files:
        file.unlink()
    return rows


def keep_rows(rows: Rows) -> NDArray[np.bool_]:
    """Mask of the rows that are finite and no longer than 2.5 median norms, [tokens]."""
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    finite = np.isfinite(rows).all(axis=1)
    kept: NDArray[np.bool_] = finite & (norms <= MAX_NORM * np.median(norms[finite]))
    return kept
