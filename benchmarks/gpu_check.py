"""A GPU's numbers beside the CPU's: capture, encode, cosines and decoding, to stated tolerances.

One script of at most eight minutes for the first CUDA device. It also forces memory to run out
once, through the worker's own path (batches halve, the manifest says so), and prints the roofline
of the card. Exit status 0: all agree, 1: something does not, 75: there is no such device. With
``--device cpu`` the CPU is compared with itself, which tests the script and no GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from roofline import HOOK, MODEL, Timer, measured_machine, opened, print_table, stages
from torch import Tensor

from loopscope.inputs.models import describe_model
from loopscope.numerics.architectures.jumprelu import JumpRelu
from loopscope.numerics.dictionaries.sparse import block_shape, encode
from loopscope.numerics.latents.mapping import inverse_norms
from loopscope.numerics.model.batching import pad
from loopscope.numerics.model.capture import residual_at_hook, rows_without_bos
from loopscope.numerics.statistics.sampling import SamplingRule, random_direction, uniforms
from loopscope.numerics.steering.generation import generate
from loopscope.numerics.steering.intervention import Intervention
from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.specs.payloads.capture import CapturePayload
from loopscope.state.db import jobs
from loopscope.state.folder import StateFolder, open_state
from loopscope.state.records import JobRecord
from loopscope.worker.lease import Lease
from loopscope.worker.models import LoadedModel
from loopscope.worker.runner import Runner, torch_threads
from loopscope.worker.stages.capture import forward_passes
from loopscope.worker.stop import StopRequest
from loopscope.worker.warm import WarmInputs

NO_DEVICE = 75
"""Exit status where there is nothing to check (EX_TEMPFAIL)."""
TEXTS = (
    "The old harbour was quiet when", "She opened the letter and", "In the north of the country",
    "Most people who live here", "The recipe begins with", "After the long winter",
)  # fmt: skip
STEPS = 12
LATENTS = 4096
ROUNDS = 3
BYTES_OF_NOBODY = 2**46
"""Of memory: more than any machine has."""


@dataclass(frozen=True)
class Checked:
    """A number that may not exceed its limit."""

    what: str
    measured: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether it is within its limit; NaN never is."""
        return self.measured <= self.limit

    def __str__(self) -> str:
        word = "ok  " if self.holds else "FAIL"
        return f"{word} {self.what}: {self.measured:.2g}, allowed {self.limit:.2g}"


def residuals(model: LoadedModel) -> Tensor:
    """Return the residual of every token but BOS of the texts, on the CPU."""
    tokens = [model.encode(text) for text in TEXTS]
    batch = pad(tokens, model.pad_token, "right", model.device)
    found = residual_at_hook(model.bridge, HOOK, batch, model.d_model)
    return torch.cat(rows_without_bos(found, batch)).cpu()


def dictionary(d_model: int) -> JumpRelu:
    """Return a random dictionary with thresholds, the same on every machine."""
    rows = np.random.default_rng(0).standard_normal((LATENTS, d_model)).astype(np.float32)
    decoder = torch.nn.functional.normalize(torch.from_numpy(rows), dim=1)
    return JumpRelu(
        w_enc=decoder.T.contiguous(),
        b_enc=torch.zeros(LATENTS),
        w_dec=decoder,
        b_dec=torch.zeros(d_model),
        threshold=torch.full((LATENTS,), 1.0),
    )


def activations(rows: Tensor, device: str) -> Tensor:
    """Return the dense activations of rows that are scaled to unit variance, on the CPU."""
    scaled = (rows / rows.std()).to(device)
    made = dictionary(rows.shape[1]).to(device)
    return torch.from_numpy(encode(made, scaled, *block_shape(len(rows), LATENTS)).toarray())


def cosines(d_model: int, device: str) -> Tensor:
    """Return the cosines of a dictionary's rows with one another, on the CPU."""
    decoder = dictionary(d_model).w_dec.to(device)
    unit = decoder * inverse_norms(decoder)[:, None]
    return (unit @ unit.T).cpu()


def decoded(model: LoadedModel) -> list[list[int]]:
    """Return what is generated after each text, half of them steered, by the same draws."""
    strength = 2000.0 * random_direction(0, 0, model.d_model)
    vectors = torch.stack([strength if i % 2 else torch.zeros_like(strength) for i in range(6)])
    draws = torch.from_numpy(np.stack([uniforms(0, text, 0, STEPS) for text in TEXTS]))
    return generate(
        model.causal,
        model.place(HOOK),
        [model.encode(text) for text in TEXTS],
        Intervention(vectors.to(model.device)),
        draws.to(model.device),
        SamplingRule(temperature=0.8, top_k=50),
        eos_tokens=frozenset(),
        pad_token=model.pad_token,
    ).tokens


def compared(device: str) -> tuple[list[Checked], LoadedModel]:
    """Return every comparison, and the model on the device."""
    on_cpu = opened("cpu")
    expected, texts = residuals(on_cpu), decoded(on_cpu)
    scale = float((expected - expected.mean(dim=0)).norm(dim=1).median())
    model = on_cpu if device == "cpu" else opened(device)
    found = residuals(model)
    apart = float((found - expected).norm(dim=1).max()) / scale
    codes, known = activations(expected, device), activations(expected, "cpu")
    differing = float(((codes > 0) != (known > 0)).float().sum() / (known > 0).float().sum())
    both = (codes > 0) & (known > 0)
    gap = float((codes - known)[both].abs().max())
    pairs = (cosines(model.d_model, device) - cosines(model.d_model, "cpu")).abs().max()
    same = [a == b for a, b in zip(decoded(model), texts, strict=True)]
    return [
        Checked("capture: largest difference of a row, in centred norms", apart, 1e-3),
        Checked("encode: share of active latents that only one of them has", differing, 1e-3),
        Checked("encode: largest difference of an activation", gap, 1e-3),
        Checked("cosines: largest difference", float(pairs), 1e-4),
        Checked("decoding: share of texts that differ", 1 - sum(same) / len(same), 0.34),
    ], model


def out_of_memory(model: LoadedModel, device: str, folder: Path) -> Checked:
    """Run a capture whose first batch asks for more memory than there is, and run it again.

    The first try fails as the library says so, the second halves its batches. Counts what of this
    does not stand in the job and in the manifest.
    """
    state = open_state(folder)
    action = Action("capture", {}, dict(_capture_payload()))
    with state.database.write() as connection:
        job, _ = jobs.enqueue(connection, action, Key("Capture", "default", "hungry"), 1, now=1.0)
    warm = WarmInputs((model.identity, model))
    with _memory_runs_out_once(device):
        first = _try(state, device, warm, job, now=2.0)
        second = _try(state, device, warm, job, now=time.time() + 3600)
    manifest = state.artifacts.manifest("capture", action.digest)
    wrong = [
        first.reason != "OutOfMemory",
        second.state != "succeeded",
        manifest.get("batchDivisor") != 2,
    ]
    return Checked("memory that ran out once: what is not as it should be", float(sum(wrong)), 0.0)


def _capture_payload() -> CapturePayload:
    conditions = ("target", "neutral")
    return {
        "model": describe_model(MODEL).ref,
        "hook": HOOK,
        "positions": "last",
        "maxTokens": 64,
        "prompts": [
            {
                "id": f"{conditions[i % 2]}-{i // 2:04d}",
                "text": text,
                "condition": conditions[i % 2],
            }
            for i, text in enumerate(TEXTS)
        ],
        "calibrationText": [" ".join(TEXTS)],
    }


@contextmanager
def _memory_runs_out_once(device: str) -> Iterator[None]:
    plain, asked = forward_passes.residuals_at_hooks, []

    def hungry(*arguments: Any) -> dict[str, Tensor]:
        if not asked:
            asked.append(device)
            torch.empty(BYTES_OF_NOBODY, dtype=torch.uint8, device=device)
        return plain(*arguments)

    forward_passes.residuals_at_hooks = hungry
    try:
        yield
    finally:
        forward_passes.residuals_at_hooks = plain


def _try(state: StateFolder, device: str, warm: WarmInputs, number: int, now: float) -> JobRecord:
    with state.database.write() as connection:
        job = jobs.claim(connection, number, "gpu-check", 3600.0, now=now)
    assert job is not None
    lease = Lease(state.database, job.id, job.token, 3600.0, StopRequest(lambda: None))
    Runner(state, device, warm=warm).run(job.id, job.token, lease)
    with state.database.read() as connection:
        ended = jobs.get(connection, number)
    assert ended is not None
    return ended


def main() -> int:
    """Print each comparison and the roofline; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    device = str(parser.parse_args().device)
    if device != "cpu" and not torch.cuda.is_available():
        print("there is no CUDA device, so nothing was checked")
        return NO_DEVICE
    torch.set_num_threads(torch_threads())
    torch.set_grad_enabled(False)
    checks, model = compared(device)
    with TemporaryDirectory() as folder:
        checks.append(out_of_memory(model, device, Path(folder) / "state"))
    print(*checks, sep="\n", flush=True)
    timer = Timer(ROUNDS, device)
    machine = measured_machine(timer)
    print_table(machine, stages(model, machine, timer))
    return 0 if all(check.holds for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
