from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from state.failures import TerminalFailure
from tests.stage_world import (
    NEUTRAL,
    TARGET,
    capture_payload,
    contents,
    interrupted_and_resumed,
    table,
)
from worker.stages import capture


def test_a_capture_of_last_tokens_is_that_of_plain_hugging_face(world):
    folder, metrics = world.run(capture, capture_payload())
    found = load_file(folder / "residual.safetensors")
    expected, every = [], []
    for text in TARGET + NEUTRAL:
        tokens = torch.tensor([world.model.encode(text)])
        with torch.no_grad():
            states = world.model.hf_model(input_ids=tokens, output_hidden_states=True).hidden_states
        every.append(states[2][0, 1:])
        expected.append(states[2][0, -1])
    assert torch.allclose(found["residual"], torch.stack(expected), rtol=1e-4, atol=1e-4)
    assert found["prompt_index"].tolist() == list(range(8))
    assert found["position"].tolist() == [len(rows) for rows in every]
    norms = json.loads((folder / "norms.json").read_text())
    population = torch.cat(every).double()
    assert norms["n_tokens"] == metrics["tokens"] == len(population)
    assert norms["median_norm"] == pytest.approx(np.median(population.norm(dim=1)), rel=1e-5)
    centred = (population - population.mean(dim=0)).norm(dim=1)
    assert norms["median_centred_norm"] == pytest.approx(np.median(centred), rel=1e-5)
    mean = load_file(folder / "mean.safetensors")["mean"]
    assert torch.allclose(mean, population.mean(dim=0).float(), rtol=1e-4, atol=1e-4)


def test_all_positions_hold_every_token_but_bos_in_prompt_order(world):
    folder, _ = world.run(capture, capture_payload(positions="all"))
    found = load_file(folder / "residual.safetensors")
    prompts = table(folder / "prompts.parquet")
    assert prompts["n_tokens"] == [len(t.split()) for t in TARGET + NEUTRAL]
    assert found["prompt_index"].tolist() == [
        i for i, n in enumerate(prompts["n_tokens"]) for _ in range(n)
    ]
    assert found["position"].tolist() == [p for n in prompts["n_tokens"] for p in range(1, n + 1)]
    last, _ = world.run(capture, capture_payload(), "last", "last")
    ends = np.cumsum(prompts["n_tokens"]) - 1
    assert torch.equal(
        found["residual"][ends], load_file(last / "residual.safetensors")["residual"]
    )


def test_a_prompt_over_the_limit_is_refused_by_name(world):
    with pytest.raises(TerminalFailure, match=r"prompt p1 has 7 tokens, the limit is 6") as failure:
        world.run(capture, capture_payload(maxTokens=6))
    assert failure.value.reason == "PromptTooLong"


def test_a_hook_that_the_model_lacks_is_refused(world):
    with pytest.raises(TerminalFailure) as failure:
        world.run(capture, capture_payload(hook="blocks.7.hook_resid_post"))
    assert failure.value.reason == "UnknownHook"


def test_a_resumed_capture_has_the_bytes_of_an_undisturbed_one(world, monkeypatch):
    monkeypatch.setattr(capture, "TOKENS_PER_BATCH_MAX", 12)
    monkeypatch.setattr(capture, "BATCHES_PER_SHARD", 1)
    whole = contents(world.run(capture, capture_payload())[0])
    assert interrupted_and_resumed(world, capture, capture_payload(), 5) == whole


def test_a_resumed_capture_does_not_repeat_its_shards(world, monkeypatch):
    monkeypatch.setattr(capture, "TOKENS_PER_BATCH_MAX", 12)
    monkeypatch.setattr(capture, "BATCHES_PER_SHARD", 1)
    world.run(capture, capture_payload(), "first", "same")
    shards = contents(world.folder / "shards" / "same")
    monkeypatch.setattr(capture, "residual_at_hook", lambda *_: pytest.fail("captured again"))
    world.run(capture, capture_payload(), "second", "same")
    assert contents(world.folder / "shards" / "same") == shards
