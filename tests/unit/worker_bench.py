"""A capture and two small dictionaries with known answers, for the tests of two stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from loopscope.numerics.architectures.standard import Standard
from loopscope.specs.artifacts.capture import CALIBRATION, CAPTURED_PROMPTS, REFERENCE
from loopscope.specs.artifacts.decomposition import FEATURES
from loopscope.specs.rules import Gate, Selection
from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.state.failures import JobStopped
from loopscope.worker.context import StageContext
from loopscope.worker.shards import Shards
from loopscope.worker.stages.decomposition import stage as decomposition
from loopscope.worker.stages.geometry import stage as geometry
from loopscope.worker.stages.mapping import stage as mapping
from loopscope.worker.stages.tables import read_columns, write_table

D_IN = 6


def relu_dictionary(decoder: torch.Tensor) -> Standard:
    """Latent i fires as far as the row's part along decoder row i exceeds 0.5."""
    return Standard(
        w_enc=decoder.T.contiguous(),
        b_enc=torch.full((len(decoder),), -0.5),
        w_dec=decoder.contiguous(),
        b_dec=torch.zeros(D_IN),
    )


AXES = torch.eye(D_IN)
COARSE = relu_dictionary(torch.stack([2 * AXES[0], AXES[1], AXES[2], AXES[5]]))
FINE = relu_dictionary(
    torch.stack(
        [
            AXES[0],  # the twin of coarse 0
            AXES[0] + AXES[1],  # child, but fires on neutral as well
            AXES[0] - 100 * AXES[5],  # nearly orthogonal
            AXES[0] * 0.5 - AXES[4],  # cosine 0.45, never fires
            AXES[2],
            torch.zeros(D_IN),
        ]
    )
)
TARGETS, NEUTRALS = 12, 10
TEXT_TOKENS = 40
COMPARED = (0, 2)
"""Prompts that plain Hugging Face ran again."""


@dataclass
class Bench:
    """A folder with a capture, and everything a stage needs, all of it real."""

    folder: Path
    reports: list[tuple[str, int, int, str]] = field(default_factory=list)
    stop_after: int | None = None
    split: Sequence[str] = ()
    groups: Sequence[int] | None = None

    def context(self, action: str) -> StageContext:
        return StageContext(
            device="cpu",
            model=lambda ref: pytest.fail("no model is needed"),
            dictionary=lambda ref: {"coarse": COARSE, "fine": FINE}[ref["identity"]],
            artifact=lambda stage, digest: self.folder / stage / digest,
            shards=Shards(ShardFolder(self.folder / "shards" / action)),
            progress=self._report,
        )

    def _report(self, phase: str, done: int, total: int, unit: str) -> None:
        self.reports.append((phase, done, total, unit))
        if self.stop_after is not None and len(self.reports) > self.stop_after:
            raise JobStopped

    def out(self, stage: str, digest: str) -> Path:
        path = self.folder / stage / digest
        path.mkdir(parents=True, exist_ok=True)
        return path

    def capture(self, tokens: int = 1, split: Sequence[str] | None = None, hard: int = 0) -> None:
        """Axis 0 is large on targets, axis 1 on half of all, axis 2 on neutrals.

        The last ``hard`` neutrals are hard negatives instead.
        """
        generator = np.random.default_rng(0)
        prompts = TARGETS + NEUTRALS
        is_target = np.arange(prompts) < TARGETS
        rows = generator.uniform(0, 0.2, (prompts, D_IN)).astype(np.float32)
        rows[:, 0] += is_target * generator.uniform(1, 3, prompts)
        rows[:, 1] += (np.arange(prompts) % 2) * generator.uniform(1, 3, prompts)
        rows[:, 2] += ~is_target * generator.uniform(1, 3, prompts)
        rows[:, 4] = 3
        rows[:, 5] = 0
        rows = np.repeat(rows, tokens, axis=0)
        rows *= np.tile(np.linspace(1, 0.5, tokens, dtype=np.float32), prompts)[:, None]
        tensors = {
            "residual": rows,
            "prompt_index": np.repeat(np.arange(prompts, dtype=np.int32), tokens),
            "position": np.tile(np.arange(1, tokens + 1, dtype=np.int32), prompts),
        }
        columns = {
            "prompt_id": [f"p{i}" for i in range(prompts)],
            "text": ["text"] * prompts,
            "condition": np.where(is_target, "target", "neutral").astype("<U13"),
            "n_tokens": np.full(prompts, tokens),
            "last_token": ["text"] * prompts,
        }
        self.split = split or ["discover"] * prompts
        if hard:
            columns["condition"][-hard:] = "hard-negative"
        text = generator.uniform(0, 1, (TEXT_TOKENS, D_IN)).astype(np.float32)
        self.write_capture(tensors, columns, text)

    def write_capture(
        self, tensors: dict[str, np.ndarray], columns: dict[str, object], text: np.ndarray
    ) -> None:
        """Write a capture's files, calibration text and what was run again included."""
        out = self.out("capture", "c")
        save_file({"residual": text}, out / CALIBRATION.name)
        save_file(tensors, out / "residual.safetensors")
        again = np.isin(tensors["prompt_index"], COMPARED)
        reference = {name: tensors[name][again] for name in ("residual", "prompt_index")}
        save_file(reference, out / REFERENCE.name)
        write_table(out, CAPTURED_PROMPTS, columns)

    def decompose(self, which: str, aggregation: str = "last") -> dict[str, object]:
        payload = {"capture": {"digest": "c"}, "dictionary": {"identity": which}}
        payload |= {"aggregation": aggregation, "splits": list(self.split)}
        payload |= {"groups": self.groups} if self.groups is not None else {}
        return decomposition.run(payload, self.context(which), self.out("decomposition", which))

    def rates_over_text(self, which: str, rates: Sequence[float]) -> None:
        """Give a decomposition the rates over calibration text that a test needs."""
        folder = self.folder / "decomposition" / which
        columns = read_columns(folder / FEATURES.name)
        write_table(folder, FEATURES, {**columns, "text_rate": np.array(rates, dtype=float)})

    def compare_decoders(self) -> Path:
        """Make the geometry of the two dictionaries, once."""
        out = self.folder / "geometry" / "g"
        if not out.exists():
            pair = {"coarse": {"identity": "coarse"}, "fine": {"identity": "fine"}}
            geometry.run(pair, self.context("g"), self.out("geometry", "g"))
        return out

    def map(self, candidates: list[int], digest: str = "m", **changes: object):
        self.compare_decoders()
        payload = mapping_payload(candidates)
        payload["gate"] = {**payload["gate"], **changes}
        out = self.out("mapping", digest)
        return mapping.run(payload, self.context(digest), out), out


COARSE_REF = {"dictionary": {"identity": "coarse"}}


def mapping_payload(candidates: list[int]) -> dict:
    return {
        "capture": {"digest": "c"},
        "geometry": {"digest": "g"},
        "coarse": {"digest": "coarse", **COARSE_REF, "candidates": candidates},
        "fine": {"digest": "fine", "dictionary": {"identity": "fine"}, "candidates": []},
        "selection": Selection().canonical(),
        "minCosine": 0.3,
        "partialCosine": 0.1,
        "minCorrelation": 0.2,
        "topK": 2,
        "permutations": 99,
        "seed": 0,
        "gate": {**Gate(resamples=20).canonical(), "minSubfeatures": 3},
    }


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
