"""Experiments of other shapes than the usual one, from the spec to the report by real processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import loopscope
from loopscope.notebook_experiment import Experiment
from tests.chat_templates import CHATML, TURNS
from tests.integration.real import Place
from tests.layouts import normal, temporal
from tests.tiny_experiment import document, save_dictionary
from tests.tiny_models import save_chat_model

pytestmark = pytest.mark.integration

READ, WRITE = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"
CHAT_HOOK, CHAT_WIDTH = "blocks.1.hook_resid_pre", 16
STEERED = ["coarse", "fine", "multi"]


def dictionaries(
    folder: Path, width: int, hook: str, write_hook: str | None = None
) -> dict[str, Any]:
    """Save a coarse and a fine dictionary of random directions; return how a spec names them."""
    generator = np.random.default_rng(11)
    coarse = generator.normal(size=(48, width))
    near = coarse.repeat(2, axis=0) + 0.5 * generator.normal(size=(96, width))
    for side, decoder in (("coarse", coarse), ("fine", near)):
        save_dictionary(folder / "own" / side, decoder, hook, write_hook)
    return {side: {"path": f"../own/{side}"} for side in ("coarse", "fine")}


def finished(place: Place) -> Experiment:
    """Run the spec until all is settled; return the experiment, which was steered."""
    place.settle()
    experiment = loopscope.open(place.state).experiments["tiny"]
    arms = experiment.arms()
    steered = arms[arms["arm"].isin(STEERED)]
    assert set(steered["arm"]) == set(STEERED), arms
    assert (steered["kl"] > 0).all()
    assert experiment.verdict()["verdict"]
    return experiment


def test_a_transcoder_is_read_at_one_place_measured_and_steered_at_another(tmp_path):
    place = Place(tmp_path)
    place.write(hook=READ, writeHook=WRITE, dictionaries=dictionaries(tmp_path, 32, READ, WRITE))
    experiment = finished(place)
    capture = place.artifact("capture", "tiny-capture")
    x = load_file(capture / "calibration.safetensors")["residual"]
    y = load_file(capture / "written.safetensors")["calibration"]
    assert not np.allclose(x, y)
    weights = load_file(tmp_path / "own" / "coarse" / "sae_weights.safetensors")
    rebuilt = np.maximum(x @ weights["W_enc"], 0) @ weights["W_dec"]
    fvu = np.square(y - rebuilt).sum() / np.square(y - y.mean(axis=0)).sum()
    metrics = experiment.artifacts["coarse"].metrics
    assert metrics["text_fvu"] == pytest.approx(float(fvu), rel=1e-3)


def test_latents_that_read_the_tokens_before_are_mapped_and_shown(tmp_path):
    place = Place(tmp_path)
    for side, latents in (("coarse", 48), ("fine", 96)):
        rows = {"w_dec": normal(latents, 32), "b_dec": normal(32)}
        for name, data in temporal(f"own/{side}", rows).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    named = {side: {"path": f"../own/{side}"} for side in ("coarse", "fine")}
    place.write(dictionaries=named, steering=None, evidence={})
    place.settle()
    experiment = loopscope.open(place.state).experiments["tiny"]
    evidence = experiment.artifacts["evidence"].metrics
    assert evidence["firings"] > 0 and evidence["largest_difference"] < 1e-3
    manifest = place.artifact("decomposition", "tiny-coarse") / "manifest.json"
    assert json.loads(manifest.read_text())["inputs"]["captured"]["prompts"] == "48 texts"


def test_a_chat_experiment_reads_and_steers_in_its_template_and_shows_each_token(tmp_path):
    place = Place(tmp_path)
    place.write()
    save_chat_model(tmp_path / "chat", CHATML, TURNS[CHATML])
    plain = document("tiny")["spec"]
    place.write(
        model={"name": "tiny-chat", "source": {"folder": "../chat"}},
        hook=CHAT_HOOK,
        dictionaries=dictionaries(tmp_path, CHAT_WIDTH, CHAT_HOOK),
        prompts={**plain["prompts"], "chat": {"system": "Be brief."}},
        positions="lastContent",
        steering={**plain["steering"], "systemPrompt": "Speak of paris."},
    )
    experiment = finished(place)
    assert "systemPrompt" in set(experiment.arms()["arm"])
    (first, *_) = json.loads(
        (place.artifact("capture", "tiny-capture") / "tokens.json").read_text()
    )["prompts"]
    said = "".join(token["text"] for token in first["tokens"])
    assert "<|im_start|>system\nBe brief.<|im_end|>" in said
    assert said.endswith("<|im_start|>assistant\n")
    (read,) = [token for token in first["tokens"] if token["read"]]
    text = (tmp_path / "texts" / "target.txt").read_text().splitlines()[0]
    assert read["part"] == "text" and read["text"] == text[-1]
    page = tmp_path / "page.html"
    code, output = place.call("report", "tiny", "-o", str(page))
    assert code == 0, output
    assert "&lt;|im_start|&gt;" in page.read_text()
