"""What bitsandbytes makes of a model, on a CPU: quantised once, computed as Hugging Face does."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from loopscope.numerics.model.batching import pad
from loopscope.numerics.model.capture import residuals_at_hooks
from loopscope.state.failures import TerminalFailure
from loopscope.worker.models import LoadedModel, load_model
from tests.integration.real import Place
from tests.tiny_experiment import HOOK
from tests.tiny_models import folder_reference, save_learned_position_model

pytestmark = pytest.mark.integration

KINDS = ("int8", "nf4")
TEXTS = ["the old town of france was quiet", "wine", "a child liked the red bread and the sea"]


@pytest.fixture(scope="session", autouse=True)
def bitsandbytes() -> Any:
    """Fail under continuous integration where it is missing; elsewhere skip."""
    if find_spec("bitsandbytes") is None:
        what = "bitsandbytes is not installed: make test-quantised installs it"
        pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)
    import bitsandbytes

    return bitsandbytes


def load(folder: Path, **more: str) -> LoadedModel:
    ref: Any = folder_reference(folder) | more
    return load_model(ref, folder, "cpu", lambda *_: None)


@pytest.fixture(scope="session", params=KINDS)
def quantised(request: pytest.FixtureRequest, rope_model_folder: Path) -> LoadedModel:
    return load(rope_model_folder, quantised=request.param)


def residuals(model: LoadedModel, texts: list[str]) -> list[Tensor]:
    """The rows of each text at the hook, from one batch."""
    tokens = [model.encode(text) for text in texts]
    batch = pad(tokens, model.pad_token, "right", "cpu")
    found = residuals_at_hooks(model.bridge, [HOOK], batch)[HOOK]
    return [row[: len(own)] for row, own in zip(found, tokens, strict=True)]


def test_what_is_captured_is_what_plain_hugging_face_computes_with_the_quantised_weights(
    quantised, bitsandbytes
):
    tokens = quantised.encode(TEXTS[0])
    with torch.no_grad():
        states = quantised.hf_model(
            input_ids=torch.tensor([tokens]), output_hidden_states=True
        ).hidden_states
    (found,) = residuals(quantised, TEXTS[:1])
    assert torch.allclose(found, states[3][0], rtol=1e-4, atol=1e-4)
    layers = {type(module) for module in quantised.hf_model.modules()}
    assert layers & {bitsandbytes.nn.Linear8bitLt, bitsandbytes.nn.Linear4bit}


def test_four_bits_are_exactly_the_weights_that_they_stand_for(rope_model_folder, bitsandbytes):
    model, plain = load(rope_model_folder, quantised="nf4"), load(rope_model_folder)
    named = dict(plain.hf_model.named_modules())
    with torch.no_grad():
        for name, module in model.hf_model.named_modules():
            if isinstance(module, bitsandbytes.nn.Linear4bit):
                weight = module.weight
                meant = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
                named[name].weight.copy_(meant)
    for found, expected in zip(residuals(model, TEXTS), residuals(plain, TEXTS), strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_row_does_not_depend_on_what_else_is_in_its_batch(quantised):
    alone = [residuals(quantised, [text])[0] for text in TEXTS]
    for found, expected in zip(residuals(quantised, TEXTS), alone, strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_quantising_moves_the_residual_stream_and_not_far(rope_model_folder, quantised):
    (found,), (expected,) = (
        residuals(model, TEXTS[:1]) for model in (quantised, load(rope_model_folder))
    )
    error = float((found - expected).norm() / expected.norm())
    assert 0 < error < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_was_published_so_is_loaded_as_it_is(rope_model_folder, tmp_path, kind):
    ours = load(rope_model_folder, quantised=kind)
    ours.hf_model.save_pretrained(tmp_path)
    ours.tokenizer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    published = load(tmp_path)
    for found, expected in zip(residuals(published, TEXTS), residuals(ours, TEXTS), strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_in_one_matrix_is_refused_by_name(tmp_path, kind):
    folder = save_learned_position_model(tmp_path / "model")
    with pytest.raises(TerminalFailure, match="in one matrix") as failure:
        load(folder, quantised=kind)
    assert failure.value.reason == "UnsupportedModel"


def test_an_experiment_on_a_quantised_model_says_what_that_did_to_its_dictionaries(tmp_path):
    place = Place(tmp_path)
    model = {"name": "tiny", "source": {"folder": "../model"}}
    place.write("plain")
    place.write("small", model={**model, "quantised": "nf4"})
    place.settle()
    code, out = place.call("describe", "experiment", "small")
    assert code == 0, out
    assert "small-coarse: FVU" in out and "unquantised (decomposition/plain-coarse): " in out
    assert "nf4 while it is loaded" in out or "nf4" in place.call("get", "capture", "-o", "json")[1]
