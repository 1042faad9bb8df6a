"""A stage whose set-up is wrong stops with the number that it measured."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from loopscope.state.failures import TerminalFailure
from loopscope.worker.preflights import Preflight, require
from loopscope.worker.stages.capture import forward_passes
from loopscope.worker.stages.capture import preflights as capture_preflights
from loopscope.worker.stages.capture import stage as capture
from loopscope.worker.stages.steering import generating
from loopscope.worker.stages.steering import stage as steering
from tests.stage_world import capture_payload, steering_payload
from tests.unit.worker_bench import Bench


def test_a_check_inside_its_range_is_reported_with_its_numbers():
    assert require([Preflight("parity", 0.5, 0.0, 1.0, "")]) == {
        "parity": {"measured": 0.5, "low": 0.0, "high": 1.0}
    }


@pytest.mark.parametrize("measured", [-0.1, 1.1, math.nan])
def test_a_check_outside_its_range_says_what_was_measured(measured):
    with pytest.raises(TerminalFailure, match="allowed 0 to 1; do this") as failure:
        require([Preflight("parity", measured, 0.0, 1.0, "do this")])
    assert failure.value.reason == "PreflightFailed"


def test_a_capture_agrees_with_hugging_face_one_prompt_at_a_time(world):
    _, metrics = world.run(capture, capture_payload())
    parity = metrics["preflights"][
        "residual against plain Hugging Face, one prompt at a time, in centred norms"
    ]
    assert parity["measured"] < 1e-5
    bos = metrics["preflights"]["begin-of-sequence tokens per prompt"]
    assert bos["measured"] == 1


def test_a_batch_that_changes_its_rows_is_caught(world, monkeypatch):
    real = forward_passes.residuals_at_hooks

    def leaking(model, hooks, batch):
        found = real(model, hooks, batch)
        return {hook: r + 0.01 * r.mean(dim=0, keepdim=True) for hook, r in found.items()}

    monkeypatch.setattr(forward_passes, "residuals_at_hooks", leaking)
    with pytest.raises(TerminalFailure, match="residual against plain Hugging Face") as failure:
        world.run(capture, capture_payload())
    assert failure.value.reason == "PreflightFailed"


def test_an_error_that_an_outlier_coordinate_dwarfs_is_caught(world, monkeypatch):
    """A tenth of what differs between tokens, and a ten-thousandth of the largest number."""
    outlier, passes, alone = 1e4, forward_passes.residuals_at_hooks, capture_preflights.residual_of

    def raised(rows):
        rows = rows.clone()
        rows[..., 0] += outlier
        return rows

    def noisy(model, hooks, batch):
        return {
            hook: raised(rows) + 0.1 * rows.std() * torch.randn(rows.shape)
            for hook, rows in passes(model, hooks, batch).items()
        }

    monkeypatch.setattr(capture_preflights, "residual_of", lambda *given: raised(alone(*given)))
    monkeypatch.setattr(forward_passes, "residuals_at_hooks", noisy)
    with pytest.raises(TerminalFailure, match="in centred norms: measured") as failure:
        world.run(capture, capture_payload())
    assert failure.value.reason == "PreflightFailed"


@pytest.mark.parametrize("positions", ["last", "all"])
def test_what_hugging_face_has_for_a_few_prompts_is_kept_beside_the_same_rows(world, positions):
    folder, _ = world.run(capture, capture_payload(positions=positions))
    kept, found = (
        load_file(folder / name) for name in ("reference.safetensors", "residual.safetensors")
    )
    same = torch.isin(found["prompt_index"], kept["prompt_index"])
    assert 0 < len(set(kept["prompt_index"].tolist())) <= 4
    torch.testing.assert_close(kept["residual"], found["residual"][same], rtol=1e-4, atol=1e-4)


def test_rows_with_other_active_latents_than_hugging_face_finds_are_caught(tmp_path):
    bench = Bench(tmp_path)
    bench.capture()
    (check,) = bench.decompose("coarse")["preflights"].values()
    assert check["measured"] == 1
    path = tmp_path / "capture" / "c" / "reference.safetensors"
    reference = load_file(path)
    reference["residual"][:, 2] += 1.0
    save_file(reference, path)
    with pytest.raises(TerminalFailure, match="active latents that plain Hugging Face") as failure:
        bench.decompose("coarse")
    assert failure.value.reason == "PreflightFailed"


def test_positions_that_padding_shifts_are_caught_where_the_model_learns_positions(
    learned_position_model, tmp_path, monkeypatch
):
    from dataclasses import replace

    from tests.stage_world import World

    real = forward_passes.residuals_at_hooks

    def shifted(model, hooks, batch):
        return real(model, hooks, replace(batch, position_ids=batch.position_ids + 1))

    monkeypatch.setattr(forward_passes, "residuals_at_hooks", shifted)
    with pytest.raises(TerminalFailure, match="residual against"):
        World(learned_position_model, tmp_path).run(capture, capture_payload())


def test_a_second_bos_inside_a_prompt_is_caught(world, monkeypatch):
    from loopscope.worker.models import LoadedModel

    real = LoadedModel.encode

    def doubled(self, text):
        tokens = real(self, text)
        return [tokens[0], tokens[1], tokens[0], *tokens[2:]] if "lyon" in text else tokens

    monkeypatch.setattr(LoadedModel, "encode", doubled)
    with pytest.raises(TerminalFailure, match="begin-of-sequence tokens per prompt: measured 2"):
        world.run(capture, capture_payload())


def test_replayed_rows_are_the_same_in_another_batch(steering_world):
    _, metrics = steering_world.run(steering, steering_payload())
    carried_on, (name, check) = metrics["preflights"].items()
    assert carried_on[0] == "difference of a pass that begins at the hook"
    assert carried_on[1]["measured"] < 1e-5
    assert name == "share of 3 replayed rows that differ"
    assert check["measured"] == 0


def test_a_text_that_depends_on_its_batch_is_caught(steering_world, monkeypatch):
    real = generating.generate

    def depending(model, place, openings, vectors, draws, *rest, **named):
        moved = (draws + 0.37 * (len(openings) % 2 + len(openings) / 100)) % 1
        return real(model, place, openings, vectors, moved.to(torch.float64), *rest, **named)

    monkeypatch.setattr(generating, "generate", depending)
    with pytest.raises(TerminalFailure, match="replayed rows that differ") as failure:
        steering_world.run(steering, steering_payload())
    assert failure.value.reason == "PreflightFailed"


INNER = "the wine <bos> is"


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("capture", {"prompts": [{"id": "p", "text": INNER}]}),
        ("capture", {"calibrationText": [INNER]}),
        ("steering", {"openings": [{"id": "o", "text": INNER}]}),
        ("steering", {"neutralText": ["a garden in summer", INNER]}),
        ("steering", {"systemPrompt": INNER, "systemPromptSeparator": "\n"}),
    ],
)
def test_a_special_token_is_refused_in_every_text_alike(steering_world, stage, changes):
    with pytest.raises(TerminalFailure) as failure:
        if stage == "capture":
            steering_world.run(capture, capture_payload(**changes))
        else:
            steering_world.run(steering, steering_payload(**changes))
    assert failure.value.reason == "SpecialTokenInText"


@pytest.mark.parametrize("field", ["openings", "neutralText"])
def test_a_text_beyond_the_models_context_is_refused_before_anything_is_steered(
    steering_world, field
):
    long = "the old house " * 60
    given = [{"id": "o", "text": long}] if field == "openings" else ["a garden", long]
    with pytest.raises(TerminalFailure) as failure:
        steering_world.run(steering, steering_payload(**{field: given}))
    assert failure.value.reason == "PromptTooLong"
    assert not any(phase == "Steering" for phase, *_ in steering_world.calls)
