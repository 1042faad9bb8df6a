"""Numbers that are none, and batches that are halved because memory is short."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from loopscope.state.failures import TerminalFailure
from loopscope.worker.stages.capture import forward_passes
from loopscope.worker.stages.capture import stage as capture
from loopscope.worker.stages.steering import stage as steering
from tests.stage_world import HOOK, capture_payload, contents, steering_payload, table


@pytest.fixture
def poison(any_model):
    """Make one word's embedding NaN until the test ends."""
    embedding = any_model.hf_model.get_input_embeddings().weight
    before = embedding.detach().clone()

    def spoil(word):
        embedding.data[any_model.encode(word)[1:]] = float("nan")

    yield spoil
    embedding.data.copy_(before)


def test_a_prompt_that_gives_nan_is_named_with_its_hook_and_nothing_is_kept(world, poison):
    poison("japan")
    with pytest.raises(TerminalFailure) as failure:
        world.run(capture, capture_payload())
    assert failure.value.reason == "NotFinite"
    assert f"{HOOK} returned NaN or infinity" in failure.value.message
    assert "first in prompt p4" in failure.value.message
    assert contents(world.folder / "out") == {}


def test_a_strength_that_overflows_is_named_with_its_arm(steering_world):
    payload = steering_payload(strengthUnit="absolute", strengths=[0.5, 1e39])
    with pytest.raises(TerminalFailure, match=r"NotFinite.*arm coarse at strength 1e\+39"):
        steering_world.run(steering, payload)


def test_a_model_that_breaks_under_no_arm_is_not_blamed_on_the_arms(steering_world, poison):
    poison("garden")
    with pytest.raises(TerminalFailure, match=r"NotFinite.*unsteered"):
        steering_world.run(steering, steering_payload(arms=["none"]))


def test_half_batches_capture_the_same_up_to_rounding(world, monkeypatch):
    whole = load_file(world.run(capture, capture_payload())[0] / "residual.safetensors")
    sizes, real = [], forward_passes.residuals_at_hooks
    monkeypatch.setattr(
        forward_passes,
        "residuals_at_hooks",
        lambda *a: (sizes.append(len(a[2].tokens)), real(*a))[1],
    )
    world.batch_divisor = 2
    halves = load_file(
        world.run(capture, capture_payload(), "half", "b")[0] / "residual.safetensors"
    )
    assert sizes == [4, 4, 1], "one batch of eight in two passes, and a calibration text"
    assert torch.equal(halves["position"], whole["position"])
    assert torch.allclose(halves["residual"], whole["residual"], rtol=1e-4, atol=1e-4)


def test_half_batches_go_on_from_the_shards_of_whole_ones(world, monkeypatch):
    monkeypatch.setattr(capture, "TOKENS_PER_BATCH_MAX", 12)
    monkeypatch.setattr(capture, "BATCHES_PER_SHARD", 1)
    whole, _ = world.run(capture, capture_payload(), "whole", "same")
    world.batch_divisor = 2
    monkeypatch.setattr(
        forward_passes, "residuals_at_hooks", lambda *_: pytest.fail("captured again")
    )
    assert contents(world.run(capture, capture_payload(), "half", "same")[0]) == contents(whole)


def test_half_batches_steer_the_same_texts(steering_world):
    whole, _ = steering_world.run(steering, steering_payload(), "whole", "whole")
    steering_world.batch_divisor = 2
    halves, _ = steering_world.run(steering, steering_payload(), "half", "half")
    samples, expected = (table(f / "steering_samples.parquet") for f in (halves, whole))
    assert samples == expected
    arms, expected = (table(f / "arms.parquet") for f in (halves, whole))
    assert arms["kl"] == pytest.approx(expected["kl"], rel=1e-3)
