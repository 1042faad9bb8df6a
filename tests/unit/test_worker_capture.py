from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from loopscope.numerics.steering.reading import streams_of
from loopscope.specs.actions import Action
from loopscope.specs.hooks import WITHIN_BLOCKS, Hook
from loopscope.specs.keys import Key
from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.state.db import jobs
from loopscope.state.failures import TerminalFailure
from loopscope.worker.companions import Companion, pending_companions
from loopscope.worker.shards import Shards
from loopscope.worker.stages.capture import forward_passes
from loopscope.worker.stages.capture import stage as capture
from loopscope.worker.stages.capture.preflights import parts_preflight
from tests.simulated import new_state
from tests.stage_world import (
    HOOK,
    NEUTRAL,
    TARGET,
    capture_payload,
    contents,
    interrupted_and_resumed,
    table,
)


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


def test_the_unit_of_strengths_does_not_know_hard_negatives(world):
    payload = capture_payload(positions="all")
    payload["prompts"][-1]["condition"] = "hard-negative"
    folder, metrics = world.run(capture, payload)
    found = load_file(folder / "residual.safetensors")
    chosen = found["prompt_index"].numpy() != len(payload["prompts"]) - 1
    population = found["residual"][torch.from_numpy(chosen)].double()
    norms = json.loads((folder / "norms.json").read_text())
    assert norms["n_tokens"] == len(population) < metrics["tokens"]
    assert norms["median_norm"] == pytest.approx(np.median(population.norm(dim=1)), rel=1e-5)


def test_all_positions_hold_every_token_but_bos_in_prompt_order(world):
    folder, _ = world.run(capture, capture_payload(positions="all"))
    found = load_file(folder / "residual.safetensors")
    prompts = table(folder / "prompts.parquet")
    assert prompts["n_tokens"] == [len(t.split()) for t in TARGET + NEUTRAL]
    assert [t.strip() for t in prompts["last_token"]] == [t.split()[-1] for t in TARGET + NEUTRAL]
    assert found["prompt_index"].tolist() == [
        i for i, n in enumerate(prompts["n_tokens"]) for _ in range(n)
    ]
    assert found["position"].tolist() == [p for n in prompts["n_tokens"] for p in range(1, n + 1)]
    last, _ = world.run(capture, capture_payload(), "last", "last")
    ends = np.cumsum(prompts["n_tokens"]) - 1
    assert torch.equal(
        found["residual"][ends], load_file(last / "residual.safetensors")["residual"]
    )


@pytest.mark.parametrize("stream", sorted(WITHIN_BLOCKS))
def test_a_place_within_a_block_is_captured_with_its_own_width_and_norms(world, stream):
    hook = str(Hook(1, stream))
    folder, metrics = world.run(capture, capture_payload(hook=hook))
    rows = load_file(folder / "residual.safetensors")["residual"]
    place = world.model.place(hook)
    expected = [
        streams_of(world.model.causal, [place], world.model.encode(text))[place][1:]
        for text in TARGET + NEUTRAL
    ]
    assert torch.allclose(rows, torch.stack([one[-1] for one in expected]), rtol=1e-4, atol=1e-4)
    block = world.model.causal.blocks[1]
    inside = 64 if hasattr(block.mlp, "down_proj") else 128
    assert metrics["d_model"] == rows.shape[1] == (inside if stream == "mlp.post" else 32)
    norms = torch.cat(expected).double().norm(dim=1)
    assert metrics["median_norm"] == pytest.approx(float(norms.median()), rel=0.2)
    (parts,) = [one for name, one in metrics["preflights"].items() if "sum of its parts" in name]
    assert parts["measured"] < 1e-5


def test_a_block_that_scales_what_it_adds_is_refused_at_places_within(world):
    block = world.model.causal.blocks[1]
    handle = block.register_forward_hook(
        lambda _m, inputs, out: (out[0] * 1.5, *out[1:]) if isinstance(out, tuple) else out * 1.5
    )
    try:
        with pytest.raises(TerminalFailure, match="places within this model's blocks are not what"):
            parts_preflight(world.model, 1, world.model.encode(TARGET[0]))
    finally:
        handle.remove()


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
    monkeypatch.setattr(
        forward_passes, "residuals_at_hooks", lambda *_: pytest.fail("captured again")
    )
    world.run(capture, capture_payload(), "second", "same")
    assert contents(world.folder / "shards" / "same") == shards


# -- several hooks in one pass ------------------------------------------------------------

DEEPER = "blocks.2.hook_resid_post"


class Count:
    """How often the model runs, through the bridge."""

    def __init__(self, monkeypatch):
        self.passes, real = 0, forward_passes.residuals_at_hooks

        def counted(*given):
            self.passes += 1
            return real(*given)

        monkeypatch.setattr(forward_passes, "residuals_at_hooks", counted)


def with_companions(world, **hooks):
    """Let the next captures find pending captures: shard folder and hook of each."""
    context, found = (
        world.context,
        [
            Companion(hook, Shards(ShardFolder(world.folder / "shards" / name)))
            for name, hook in hooks.items()
        ],
    )
    world.context = lambda shards: replace(context(shards), companions=lambda kind: found)


def test_several_hooks_of_the_same_prompts_come_from_one_pass(world, monkeypatch):
    alone = {
        hook: contents(world.run(capture, capture_payload(hook=hook), f"alone-{n}", f"own-{n}")[0])
        for n, hook in enumerate((HOOK, DEEPER))
    }
    count = Count(monkeypatch)
    with_companions(world, deeper=DEEPER)
    first, _ = world.run(capture, capture_payload(), "first", "own")
    assert count.passes == 2, "one for the prompts, one for the calibration text"
    second, _ = world.run(capture, capture_payload(hook=DEEPER), "second", "deeper")
    assert count.passes == 2, "the companion ran the model again"
    assert contents(first) == alone[HOOK] and contents(second) == alone[DEEPER]


def test_the_same_hook_with_other_positions_is_served_too(world, monkeypatch):
    alone = contents(world.run(capture, capture_payload(positions="all"), "alone", "x")[0])
    count = Count(monkeypatch)
    with_companions(world, every=HOOK)
    world.run(capture, capture_payload(), "first", "own")
    second, _ = world.run(capture, capture_payload(positions="all"), "second", "every")
    assert count.passes == 2 and contents(second) == alone


def test_a_companion_whose_hook_never_fires_is_left_to_its_own_job(world):
    alone = contents(world.run(capture, capture_payload(), "alone", "x")[0])
    with_companions(world, nowhere="blocks.99.hook_resid_post", deeper=DEEPER)
    assert contents(world.run(capture, capture_payload(), "first", "own")[0]) == alone
    assert not (world.folder / "shards" / "nowhere").exists()


def test_a_companion_that_is_not_finite_is_left_to_its_own_job(world, monkeypatch):
    real = forward_passes.residuals_at_hooks

    def spoilt(model, hooks, batch):
        found = real(model, hooks, batch)
        return {h: r * float("nan") if h == DEEPER else r for h, r in found.items()}

    alone = contents(world.run(capture, capture_payload(), "alone", "x")[0])
    monkeypatch.setattr(forward_passes, "residuals_at_hooks", spoilt)
    with_companions(world, deeper=DEEPER)
    assert contents(world.run(capture, capture_payload(), "first", "own")[0]) == alone
    assert not (world.folder / "shards" / "deeper").exists()


def test_a_capture_that_is_stopped_leaves_whole_shards_to_its_companions(world, monkeypatch):
    monkeypatch.setattr(capture, "TOKENS_PER_BATCH_MAX", 12)
    monkeypatch.setattr(capture, "BATCHES_PER_SHARD", 1)
    deeper = capture_payload(hook=DEEPER)
    alone = contents(world.run(capture, deeper, "alone", "x")[0])
    own = contents(world.run(capture, capture_payload(), "alone-own", "y")[0])
    with_companions(world, deeper=DEEPER)
    assert interrupted_and_resumed(world, capture, capture_payload(), 5) == own
    assert contents(world.run(capture, deeper, "second", "deeper")[0]) == alone


def test_half_batches_are_shared_with_nobody(world):
    world.batch_divisor = 2
    with_companions(world, deeper=DEEPER)
    world.run(capture, capture_payload())
    assert not (world.folder / "shards" / "deeper").exists()


def test_only_pending_captures_of_the_same_texts_and_model_are_companions(tmp_path):
    state = new_state(tmp_path / "state")
    own = {**capture_payload(), "model": {"identity": "m"}}
    others = {
        "other hook": {**own, "hook": DEEPER},
        "other positions": {**own, "positions": "all"},
        "other texts": {**own, "prompts": own["prompts"][1:]},
        "other model": {**own, "model": {"identity": "n"}},
    }
    key = Key("Capture", "default", "c")
    with state.database.write() as connection:
        first, _ = jobs.enqueue(connection, Action("capture", {"n": 0}, own), key, 1, now=1.0)
        for name, payload in others.items():
            action = Action("capture", {"n": name}, payload)
            jobs.enqueue(connection, action, key, 1, now=1.0)
        jobs.claim(connection, first, "w", 30.0, now=1.0)
        job = jobs.get(connection, first)
        gone = Action("capture", {"n": "gone"}, {**own, "hook": "blocks.0.hook_resid_pre"})
        cancelled, _ = jobs.enqueue(connection, gone, key, 1, now=1.0)
        jobs.cancel(connection, cancelled, "Superseded", "", now=1.0)
    found = pending_companions(state, job, "capture", device="cpu")
    assert [one.hook for one in found] == [DEEPER, HOOK]
    expected = [Action("capture", {"n": name}, {}).digest for name in list(others)[:2]]
    assert [one.shards.kept.folder.name for one in found] == expected
