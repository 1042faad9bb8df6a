"""The gate and the steering speak of one anchor: two candidates, from capture to directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loopscope.numerics.architectures.standard import Standard
from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.worker.context import StageContext
from loopscope.worker.shards import Shards
from loopscope.worker.stages.mapping import stage as mapping
from tests.unit.worker_bench import Bench, mapping_payload

WIDTH = 256
SIDE = 40
AXES = torch.eye(WIDTH)
DECOYS = 600
"""Fine rows that are nobody's children: a concept's own few are not what the decoder spreads by."""


def with_decoder(decoder: torch.Tensor) -> Standard:
    return Standard(
        w_enc=decoder.T.contiguous(),
        b_enc=torch.full((len(decoder),), -0.5),
        w_dec=decoder.contiguous(),
        b_dec=torch.zeros(WIDTH),
    )


class TwoCandidates(Bench):
    """Coarse latents 0 and 1 answer to the target, 0 more often; ``children`` says whose have any.

    All others fire on some prompts and have one child or none.
    """

    def __init__(self, folder: Path, children: dict[int, int]) -> None:
        super().__init__(folder)
        self.children = children
        generator = np.random.default_rng(0)
        rows = generator.uniform(0, 0.3, (2 * SIDE, WIDTH)).astype(np.float32)
        rows[:, 2:] += 2 * (generator.random((2 * SIDE, WIDTH - 2)) < 0.3)
        rows[:SIDE, 0] += 3
        rows[: SIDE * 8 // 10, 1] += 3
        numbers = np.arange(2 * SIDE, dtype=np.int32)
        tensors = {"residual": rows, "prompt_index": numbers, "position": np.ones_like(numbers)}
        columns: dict[str, Any] = {
            "prompt_id": [f"p{i}" for i in numbers],
            "text": ["text"] * len(numbers),
            "condition": np.repeat(["target", "neutral"], SIDE),
            "n_tokens": np.ones(len(numbers), dtype=int),
            "last_token": ["text"] * len(numbers),
        }
        self.write_capture(tensors, columns, rows[:40])
        self.split = ["discover"] * len(numbers)
        for which in ("coarse", "fine"):
            self.decompose(which)
        self.rates_over_text("coarse", generator.uniform(0.01, 0.1, 120))

    def context(self, action: str) -> StageContext:
        every = {**dict.fromkeys(range(2, 40), 1), **self.children}
        # axes 120 and on are those of children alone
        rows = [
            0.6 * AXES[latent] + 0.8 * AXES[120 + latent + 40 * number]
            for latent, count in every.items()
            for number in range(count)
        ]
        elsewhere = torch.randn((DECOYS, WIDTH), generator=torch.Generator().manual_seed(0))
        elsewhere[:, :120] = 0
        elsewhere /= torch.linalg.vector_norm(elsewhere, dim=1, keepdim=True)
        fine = torch.cat([torch.stack(rows), elsewhere])
        both = {"coarse": with_decoder(AXES[:120]), "fine": with_decoder(fine)}
        return StageContext(
            device="cpu",
            model=lambda ref: pytest.fail("no model is needed"),
            dictionary=lambda ref: both[ref["identity"]],
            artifact=lambda stage, digest: self.folder / stage / digest,
            shards=Shards(ShardFolder(self.folder / "shards" / action)),
            progress=self._report,
        )

    def mapped(
        self, candidates: list[int], **changes: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        payload: Any = {**mapping_payload(candidates), **changes}
        out = self.out("mapping", "m")
        self.compare_decoders()
        metrics = mapping.run(payload, self.context("m"), out)
        gate, directions = (
            json.loads((out / name).read_text()) for name in ("gate.json", "directions.json")
        )
        return metrics, gate, directions


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("candidates", [[0, 1], [1, 0]])
def test_steered_is_the_candidate_that_has_the_children(tmp_path, candidates):
    metrics, gate, directions = TwoCandidates(tmp_path, {1: 3}).mapped(candidates)
    assert gate["count_rule_passes"] is True
    assert gate["steered"] == directions["anchor"] == metrics["anchor"] == 1
    assert directions["anchors"] == [1, 0]
    assert (len(directions["children"]), directions["missing"]) == (3, {})
    assert metrics["arms"] == ["coarse", "fine", "multi"]
    (steered,) = [entry for entry in gate["anchors"] if entry["steered"]]
    assert (steered["coarse"], len(steered["children"])) == (1, 3)
    assert metrics["anchor_rank"] == steered["rank"] > 95
    assert "steered is coarse latent 1 with 3 children, rank" in gate["reason"]


def test_a_candidate_that_the_spec_names_is_steered_in_place_of_the_first(tmp_path):
    metrics, gate, directions = TwoCandidates(tmp_path, {0: 3, 1: 3}).mapped([0, 1], anchor=1)
    assert gate["steered"] == directions["anchor"] == metrics["anchor"] == 1
    assert directions["anchors"] == [1, 0]
    assert [entry["steered"] for entry in gate["anchors"]] == [False, True]
    assert gate["verdict"] == "GO", "the gate asks of all candidates"


def test_of_two_that_have_the_children_the_better_one_is_steered(tmp_path):
    metrics, gate, directions = TwoCandidates(tmp_path, {0: 3, 1: 3}).mapped([1, 0])
    assert gate["verdict"] == "GO", gate["doubts"]
    assert gate["rank_rule_passes"] is True
    assert gate["steered"] == directions["anchor"] == metrics["anchor"] == 0
    assert metrics["mean_rank"] > 95


def test_without_children_the_better_candidate_is_steered_and_the_gate_says_what_failed(tmp_path):
    _, gate, directions = TwoCandidates(tmp_path, {1: 2}).mapped([0, 1])
    assert (gate["verdict"], directions["anchor"]) == ("NO-GO", 0)
    assert gate["doubts"] == ["no candidate has 3 children, the most is 2"]
    assert gate["reason"].endswith("NO-GO, because no candidate has 3 children, the most is 2")


def test_children_that_others_have_as_well_are_no_go_and_the_gate_says_what_failed(tmp_path):
    everybody = dict.fromkeys(range(1, 40), 3)
    _, gate, directions = TwoCandidates(tmp_path, everybody).mapped([0, 1])
    assert (gate["verdict"], gate["count_rule_passes"]) == ("INCONCLUSIVE", True)
    assert gate["rank_rule_passes"] is False
    assert directions["anchor"] == 1
    assert "the candidates have no more children than matched anchors" in gate["reason"]
