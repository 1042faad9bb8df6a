from __future__ import annotations

import numpy as np
import pytest
import torch

from loopscope.numerics.model.batching import pad
from loopscope.numerics.model.capture import (
    HookNeverFired,
    NotFinite,
    check_residual,
    norm_statistics,
    residual_at_hook,
    rows_without_bos,
)

TEXTS = [
    "the capital of france is paris .",
    "the wine",
    "a small city near the sea and the old house in winter , far to the green garden",
]


def hooks(model):
    last = model.n_layers - 1
    return ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_post", f"blocks.{last}.hook_resid_post"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_gives_what_single_prompts_give(any_model, side):
    sequences = [any_model.encode(text) for text in TEXTS]
    batch = pad(sequences, any_model.pad_token, side)
    for hook in hooks(any_model):
        together = residual_at_hook(any_model.bridge, hook, batch, any_model.d_model)
        for row, sequence in enumerate(sequences):
            single = pad([sequence], any_model.pad_token, side)
            alone = residual_at_hook(any_model.bridge, hook, single, any_model.d_model)[0]
            error = (together[row][batch.mask[row]] - alone).norm() / alone.norm()
            assert error < 1e-5


def test_the_residual_is_what_hugging_face_calls_hidden_states(any_model):
    batch = pad([any_model.encode(TEXTS[0])], any_model.pad_token, "right")
    with torch.no_grad():
        states = any_model.hf_model(input_ids=batch.tokens, output_hidden_states=True).hidden_states
    for hook, index in (("blocks.1.hook_resid_pre", 1), ("blocks.1.hook_resid_post", 2)):
        found = residual_at_hook(any_model.bridge, hook, batch, any_model.d_model)
        assert torch.allclose(found, states[index], rtol=1e-5, atol=1e-5 * float(found.abs().max()))


def test_nothing_behind_the_hook_is_computed(any_model):
    reached = []
    later = [any_model.bridge.blocks[2], any_model.bridge.unembed]
    handles = [part.register_forward_hook(lambda *_: reached.append(1)) for part in later]
    try:
        batch = pad([any_model.encode(TEXTS[0])], any_model.pad_token, "right")
        residual_at_hook(any_model.bridge, "blocks.1.hook_resid_post", batch, any_model.d_model)
    finally:
        for handle in handles:
            handle.remove()
    assert reached == []


def test_a_capture_leaves_no_hook_behind(any_model):
    batch = pad([any_model.encode(TEXTS[0])], any_model.pad_token, "right")
    with torch.no_grad():
        before = any_model.bridge(batch.tokens)
        residual_at_hook(any_model.bridge, "blocks.1.hook_resid_post", batch, any_model.d_model)
        after = any_model.bridge(batch.tokens)
    assert torch.equal(before, after)


def test_a_hook_that_never_fires_is_an_error(any_model):
    class Silent:
        def run_with_hooks(self, *args, **kwargs):
            return None

    batch = pad([any_model.encode(TEXTS[0])], any_model.pad_token, "right")
    with pytest.raises(HookNeverFired, match="fired 0 times"):
        residual_at_hook(Silent(), "blocks.1.hook_resid_post", batch, any_model.d_model)


def test_a_residual_of_the_wrong_shape_is_refused():
    batch = pad([[1, 5]], 0, "right")
    with pytest.raises(NotFinite, match=r"shape \(1, 2, 9\)"):
        check_residual(torch.zeros(1, 2, 9), batch, 4, "blocks.0.hook_resid_post")


def test_a_residual_that_is_not_finite_is_refused_unless_it_is_padding():
    batch = pad([[1, 5], [1]], 0, "right")
    residual = torch.zeros(2, 2, 4)
    residual[1, 1] = float("nan")
    check_residual(residual, batch, 4, "hook")
    residual[0, 1, 0] = float("inf")
    with pytest.raises(NotFinite, match="NaN or infinity"):
        check_residual(residual, batch, 4, "hook")


def test_rows_hold_neither_bos_nor_padding():
    batch = pad([[1, 5, 6], [1, 8]], 0, "left")
    residual = torch.arange(6.0).view(2, 3, 1)
    assert [rows[:, 0].tolist() for rows in rows_without_bos(residual, batch)] == [[1, 2], [5]]


def test_norms_of_a_case_by_hand():
    found = norm_statistics(torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.0, 0.0]]))
    assert found.mean.tolist() == [3.0, 4.0]
    assert (found.mean_norm, found.median_norm) == (5.0, 5.0)
    assert found.median_centred_norm == 5.0
    assert found.n_tokens == 3


def test_equal_vectors_have_no_centred_norm():
    found = norm_statistics(torch.ones(7, 4))
    assert (found.median_norm, found.median_centred_norm) == (2.0, 0.0)


def test_norms_agree_with_a_float64_reference_across_blocks(monkeypatch):
    rows = torch.randn(101, 8, generator=torch.Generator().manual_seed(0)) + 100
    monkeypatch.setattr("loopscope.numerics.model.capture.ROWS_PER_BLOCK", 16)
    found = norm_statistics(rows)
    x = rows.double().numpy()
    centred = np.linalg.norm(x - x.mean(axis=0), axis=1)
    assert found.median_norm == pytest.approx(np.median(np.linalg.norm(x, axis=1)), rel=1e-12)
    assert found.median_centred_norm == pytest.approx(np.median(centred), rel=1e-9)


def test_norms_of_nothing_are_refused():
    with pytest.raises(ValueError, match="empty population"):
        norm_statistics(torch.zeros(0, 3))
