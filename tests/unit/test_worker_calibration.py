"""A dictionary that does not do on ordinary text what it was measured to do stops its stage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from loopscope.numerics.architectures.standard import Standard
from loopscope.numerics.dictionaries.sparse import ReconstructionSums, decode, encode
from loopscope.specs.artifacts.capture import CALIBRATION
from loopscope.specs.packaged import packaged_texts
from loopscope.state.failures import TerminalFailure
from loopscope.worker.stages.capture import stage as capture
from loopscope.worker.stages.decomposition.calibration import calibration_preflight
from tests.stage_world import NEUTRAL, capture_payload

ROWS = np.array([[2, 0], [0, 3], [1, 1], [-1, 0]], dtype=np.float32)
ONE_AXIS = Standard(
    w_enc=torch.tensor([[1.0], [0.0]]),
    b_enc=torch.zeros(1),
    w_dec=torch.tensor([[1.0, 0.0]]),
    b_dec=torch.zeros(2),
)
L0, FVU = 0.5, 11 / 11
"""By hand: two of four rows fire. Errors 0 + 9 + 1 + 1; spread 5 + 6 about the mean (0.5, 1)."""


def check(rows=ROWS, **expected):
    x = torch.from_numpy(rows)
    activations = encode(ONE_AXIS, x, len(rows), 1)
    sums = ReconstructionSums.of(x, decode(ONE_AXIS, activations), activations)
    return calibration_preflight({"calibration": expected} if expected else {}, sums)


def test_l0_and_fvu_are_measured_over_all_rows():
    found = check(l0=[0.4, 0.6], fvu=[0.9, 1.1])
    assert found == {
        "L0 on 4 tokens of calibration text": {"measured": L0, "low": 0.4, "high": 0.6},
        "FVU on 4 tokens of calibration text": {
            "measured": pytest.approx(FVU), "low": 0.9, "high": 1.1,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"l0": [0.6, 0.7], "fvu": [0.0, 2.0]}, "L0 on 4 tokens .* measured 0.5, allowed 0.6 to"),
        ({"l0": [0.0, 1.0], "fvu": [0.1, 0.3]}, "FVU on 4 tokens .* measured 1, allowed 0.1 to"),
    ],
)
def test_a_number_outside_its_range_stops_the_stage(expected, words):
    with pytest.raises(TerminalFailure, match=words) as failure:
        check(**expected)
    assert failure.value.reason == "PreflightFailed"


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[[1, 1]]])
def test_a_text_too_poor_to_measure_anything_is_not_the_dictionarys_fault(rows):
    with pytest.raises(TerminalFailure, match="give more calibration text") as failure:
        check(rows, l0=[0.0, 1.0], fvu=[0.0, 2.0])
    assert "trained on this model" not in failure.value.message


def test_without_ranges_nothing_is_checked():
    assert check() == {}


def test_a_capture_keeps_every_token_of_the_calibration_text_but_bos(world):
    folder, _ = world.run(capture, capture_payload(calibrationText=NEUTRAL[:2]))
    found = load_file(folder / CALIBRATION.name)["residual"]
    expected = []
    for text in NEUTRAL[:2]:
        tokens = torch.tensor([world.model.encode(text)])
        with torch.no_grad():
            states = world.model.hf_model(input_ids=tokens, output_hidden_states=True).hidden_states
        expected.append(states[2][0, 1:])
    assert torch.allclose(found, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_a_calibration_text_over_the_limit_is_read_in_pieces(world):
    """What one model takes whole is too long for another: the packaged text must fit them all."""
    text = "the capital of japan is tokyo a garden"
    prompts = [{"id": "p", "text": "wine", "condition": "target"}]
    folder, metrics = world.run(
        capture, capture_payload(prompts=prompts, calibrationText=[text], maxTokens=3)
    )
    bos, *tokens = world.model.encode(text)
    found = load_file(folder / CALIBRATION.name)["residual"]
    assert len(found) == len(tokens) == metrics["text_tokens"] == 8
    with torch.no_grad():
        piece = torch.tensor([[bos, *tokens[3:6]]])
        states = world.model.hf_model(input_ids=piece, output_hidden_states=True).hidden_states
    assert torch.allclose(found[3:6], states[2][0, 1:], rtol=1e-4, atol=1e-4)


def test_the_packaged_text_is_read_whole_by_a_model_of_short_context(world):
    text = list(packaged_texts("calibration"))
    folder, metrics = world.run(capture, capture_payload(calibrationText=text))
    tokens = sum(len(world.model.encode(line)) - 1 for line in text)
    assert len(load_file(folder / CALIBRATION.name)["residual"]) == tokens
    assert metrics["text_tokens"] == tokens > 1000
