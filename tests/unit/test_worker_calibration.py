"""A dictionary that does not do on ordinary text what it was measured to do stops its stage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file

from loopscope.numerics.dictionary import SparseDictionary
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.shards import Shards
from loopscope.worker.stages import capture
from loopscope.worker.stages.calibration import calibration_preflight
from tests.stage_world import NEUTRAL, capture_payload

ROWS = np.array([[2, 0], [0, 3], [1, 1], [-1, 0]], dtype=np.float32)
ONE_AXIS = SparseDictionary(
    w_enc=torch.tensor([[1.0], [0.0]]),
    b_enc=torch.zeros(1),
    w_dec=torch.tensor([[1.0, 0.0]]),
    b_dec=torch.zeros(2),
    architecture="standard",
)
L0, FVU = 0.5, 11 / 11
"""By hand: two of four rows fire. Errors 0 + 9 + 1 + 1; spread 5 + 6 about the mean (0.5, 1)."""


def check(tmp_path, **expected):
    folder = tmp_path / "capture"
    folder.mkdir(exist_ok=True)
    save_arrays({"residual": ROWS}, folder / capture.CALIBRATION)
    context = StageContext(
        device="cpu",
        model=lambda ref: pytest.fail("no model is needed"),
        dictionary=lambda ref: ONE_AXIS,
        artifact=lambda stage, digest: folder,
        shards=Shards(tmp_path / "shards"),
        progress=lambda *words: None,
    )
    payload = {"capture": {"digest": "c"}, **({"calibration": expected} if expected else {})}
    return calibration_preflight(payload, context, ONE_AXIS)


def test_l0_and_fvu_are_measured_over_all_rows(tmp_path):
    found = check(tmp_path, l0=[0.4, 0.6], fvu=[0.9, 1.1])
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
def test_a_number_outside_its_range_stops_the_stage(tmp_path, expected, words):
    with pytest.raises(TerminalFailure, match=words) as failure:
        check(tmp_path, **expected)
    assert failure.value.reason == "PreflightFailed"


def test_without_ranges_nothing_is_measured(tmp_path):
    assert check(tmp_path) == {}


def test_a_capture_keeps_every_token_of_the_calibration_text_but_bos(world):
    folder, _ = world.run(capture, capture_payload(calibrationText=NEUTRAL[:2]))
    found = load_file(folder / capture.CALIBRATION)["residual"]
    expected = []
    for text in NEUTRAL[:2]:
        tokens = torch.tensor([world.model.encode(text)])
        with torch.no_grad():
            states = world.model.hf_model(input_ids=tokens, output_hidden_states=True).hidden_states
        expected.append(states[2][0, 1:])
    assert torch.allclose(found, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_a_capture_without_calibration_text_writes_none(world):
    folder, _ = world.run(capture, capture_payload())
    assert not (folder / capture.CALIBRATION).exists()
