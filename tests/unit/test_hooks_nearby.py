"""A dictionary that does not reconstruct where it was put: at which hook nearby it would."""

import json

import pytest
import torch

from loopscope.numerics.architectures.standard import Standard
from loopscope.numerics.dictionaries.sparse import ReconstructionSums, encode
from loopscope.numerics.steering.reading import streams_of
from loopscope.specs.hooks import STREAMS, Hook
from loopscope.state.failures import TerminalFailure
from loopscope.worker.stages.capture import stage as capture
from loopscope.worker.stages.decomposition import nearby
from loopscope.worker.stages.decomposition import stage as decomposition
from tests.stage_world import NEUTRAL, TARGET, capture_payload

ABOVE_ZERO = 1000.0


def names(hook, n_layers=4):
    return {str(one) for one in Hook.parse(hook).nearby(n_layers)}


def test_hooks_nearby_are_those_of_the_block_and_the_same_one_block_off():
    found = names("blocks.2.hook_resid_post")
    assert {"blocks.2.hook_resid_pre", "blocks.3.hook_resid_post"} < found
    assert "blocks.2.hook_mlp_out" in found and "blocks.2.hook_resid_post" not in found
    assert "blocks.1.hook_resid_post" not in found, "it is what enters block 2, listed once"
    assert names("blocks.0.attn.hook_z") == {"blocks.1.attn.hook_z"}
    assert names("blocks.3.mlp.hook_post") == {"blocks.2.mlp.hook_post"}
    assert "blocks.0.hook_resid_post" not in names("blocks.1.hook_resid_pre")


@pytest.mark.parametrize("stream", STREAMS)
def test_every_hook_nearby_has_the_same_width_and_stands_in_the_model(stream):
    hook = Hook(0, stream)
    assert all(one.width == hook.width and 0 <= one.block < 1 for one in hook.nearby(1))
    assert hook not in hook.nearby(4)


def made_for(model, hook):
    """Return a dictionary that is exact on the prompts at one hook, and wild outside of them."""
    place = model.place(hook)
    rows = torch.cat(
        [
            streams_of(model.causal, [place], model.encode(text), model.device)[place][1:]
            for text in TARGET + NEUTRAL
        ]
    )
    middle = rows.mean(dim=0)
    reach = (rows - middle).abs().max(dim=0).values
    eye, width = torch.eye(len(middle)), len(middle)
    outside = [-middle - reach, middle - reach]
    return Standard(
        torch.cat([eye, eye, -eye], dim=1),
        torch.cat([torch.full((width,), ABOVE_ZERO), *outside]),
        torch.cat([eye, 100 * eye, -100 * eye]),
        torch.full((width,), -ABOVE_ZERO),
        apply_b_dec_to_input=False,
    )


@pytest.fixture
def decompose(world):
    """Capture at one hook; decompose with a dictionary that was made for another."""

    def decompose(trained_at, captured_at="blocks.1.hook_resid_post", **changes):
        asked = capture_payload(hook=captured_at, calibrationText=TARGET + NEUTRAL)
        world.dictionaries["d"] = made_for(world.model, trained_at)
        folder, _ = world.run(capture, asked, "capture", "capture")
        inputs = {**asked, "prompts": "8 texts", "calibrationText": "8 texts"}
        (folder / "manifest.json").write_text(json.dumps({"inputs": inputs}))
        payload = {
            "aggregation": "last", "splits": ["discover"] * 8, "capture": {"digest": "c"},
            "dictionary": {"identity": "d"}, **changes,
        }  # fmt: skip
        return world.run(decomposition, payload, "decomposed", "decomposed")[1]

    return decompose


def test_the_hook_for_which_a_dictionary_was_made_is_named(decompose):
    metrics = decompose("blocks.1.hook_resid_pre")
    assert metrics["text_fvu"] > 1
    best = min(metrics["nearby_fvu"], key=metrics["nearby_fvu"].__getitem__)
    assert best == "blocks.1.hook_resid_pre" and metrics["nearby_fvu"][best] < 0.01
    assert metrics["nearby_fvu"]["blocks.1.hook_resid_post"] > 1
    assert metrics["nearby"].startswith("it would reconstruct at blocks.1.hook_resid_pre (FVU ")


def test_a_range_that_is_missed_names_it_in_place_of_general_advice(decompose):
    with pytest.raises(TerminalFailure) as failure:
        decompose("blocks.1.hook_resid_pre", calibration={"l0": [0, 1e9], "fvu": [0, 1]})
    assert failure.value.reason == "PreflightFailed"
    assert "it would reconstruct at blocks.1.hook_resid_pre" in failure.value.message


def test_a_dictionary_that_fits_is_tried_nowhere_else(decompose):
    metrics = decompose("blocks.1.hook_resid_post")
    assert metrics["text_fvu"] < 1 and not {"nearby", "nearby_fvu"} & set(metrics)


def test_one_that_fits_nowhere_is_said_to(decompose, world, monkeypatch):
    wild = made_for(world.model, "blocks.1.hook_resid_post")
    monkeypatch.setattr(
        f"{__name__}.made_for",
        lambda *_: Standard(wild.w_enc, wild.b_enc, 3 * wild.w_dec, wild.b_dec),
    )
    metrics = decompose("blocks.1.hook_resid_post")
    assert metrics["nearby"].startswith("nor does it reconstruct at a hook nearby")


def test_a_model_that_cannot_be_loaded_any_more_costs_the_advice_and_nothing_else(
    decompose, world, monkeypatch
):
    real = world.context

    def context(shards):
        def gone(ref):
            raise TerminalFailure("NotFound", "the model is gone")

        found = real(shards)
        object.__setattr__(found, "model", found.model if shards == "capture" else gone)
        return found

    monkeypatch.setattr(world, "context", context)
    metrics = decompose("blocks.1.hook_resid_pre")
    assert metrics["nearby_fvu"] == {} and metrics["nearby"] == "hooks nearby could not be tried"


@pytest.mark.parametrize("divisor", [1, 2])
def test_all_hooks_in_one_batch_have_the_fvu_that_prompts_one_by_one_have(
    decompose, world, monkeypatch, divisor
):
    monkeypatch.setattr(nearby, "TOKENS_PER_BATCH_MAX", 32)
    world.batch_divisor = divisor
    found = decompose("blocks.1.hook_resid_pre")["nearby_fvu"]
    assert len(found) > 4
    for hook, fvu in found.items():
        assert fvu == pytest.approx(one_by_one(world, hook), rel=1e-4, abs=1e-9), hook


def one_by_one(world, hook):
    """The FVU of a dictionary at a hook, each text run and encoded by itself, in float64."""
    dictionary, place = world.dictionaries["d"], world.model.place(hook)
    sums = ReconstructionSums.empty(dictionary.d_out, dictionary.d_sae)
    for text in TARGET + NEUTRAL:
        x = streams_of(world.model.causal, [place], world.model.encode(text))[place][1:]
        activations = encode(dictionary, x, 1, dictionary.d_sae)
        rebuilt = torch.from_numpy(activations.toarray()).double() @ dictionary.w_dec.double()
        sums = sums.merge(ReconstructionSums.of(x, rebuilt + dictionary.b_dec, activations))
    return sums.fvu


def test_a_wide_dictionary_is_tried_on_few_tokens_and_a_narrow_one_on_all_that_are_asked():
    class Widths:
        d_in, d_sae = 2_304, 262_144

    for hooks in (1, 9):
        work = nearby.tokens_max(Widths, hooks) * hooks * Widths.d_in * Widths.d_sae
        assert nearby.MULTIPLICATIONS_MAX / 2 < work <= nearby.MULTIPLICATIONS_MAX
    Widths.d_sae = 512
    assert nearby.tokens_max(Widths, 9) == nearby.TOKENS_MAX
    Widths.d_sae = 2**40
    assert nearby.tokens_max(Widths, 9) == nearby.TOKENS_MIN


def test_whole_texts_are_taken_as_long_as_they_fit_and_the_last_is_cut():
    texts = [[1, 5, 6], [1, 7, 8, 9], [1, 4]]
    assert nearby.beginnings(texts, 100) == texts
    assert nearby.beginnings(texts, 4) == [[1, 5, 6], [1, 7, 8]]
    assert nearby.beginnings(texts, 2) == [[1, 5, 6]]


def test_each_block_of_latents_that_is_done_is_said(decompose, world, monkeypatch):
    monkeypatch.setattr(nearby, "block_shape", lambda rows, latents, bytes_max: (rows, 10))
    decompose("blocks.1.hook_resid_pre")
    said = [(done, total) for phase, done, total, *_ in world.calls if phase == nearby.PHASE]
    blocks = -(-world.dictionaries["d"].d_sae // 10)
    assert blocks > 2 and said == [(done, blocks) for done in range(blocks + 1)]
