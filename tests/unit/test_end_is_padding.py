"""A chat model that pads with the token that ends a turn, and whose head is its embedding."""

import pytest
import torch
from safetensors.torch import load_file

from loopscope.numerics.model.hooks import HookPlace
from loopscope.numerics.statistics.sampling import SamplingRule, uniforms
from loopscope.numerics.steering.generation import generate
from loopscope.numerics.steering.intervention import Intervention
from loopscope.worker.encoding import encoded_texts
from loopscope.worker.models import load_model
from loopscope.worker.stages.capture import stage as capture
from tests.chat_templates import CHATML, TURNS
from tests.drawn import adding, assert_drawn_alike, next_logits
from tests.stage_world import World, capture_payload
from tests.tiny_models import folder_reference, save_turn_model

TEXTS = ["Is wine good?", "Was it red?", "The wine of the old house is", "A wine that"]
CHAT = {"template": CHATML, "addGenerationPrompt": True}
PLACE = HookPlace(0, "resid_post")
RULE = SamplingRule(temperature=0.9, top_k=20)
STEPS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory, one_torch_thread):
    folder = tmp_path_factory.mktemp("model")
    save_turn_model(folder, CHATML, TURNS[CHATML])
    ref = {**folder_reference(folder), "bos_token": "<eos>"}
    return load_model(ref, folder, "cpu", lambda *_: None)


def test_the_padding_ends_a_turn_and_the_head_is_the_embedding(model):
    assert model.eos_tokens == {model.pad_token}
    embedding = model.hf_model.get_input_embeddings().weight
    assert model.causal.head.weight.data_ptr() == embedding.data_ptr()
    for one in encoded_texts(model, CHAT, TEXTS):
        assert model.pad_token in one.tokens, "what pads stands in every chat"
        assert one.tokens[0] == model.bos_token != one.tokens[1]
    assert model.encode(TEXTS[0])[0] != model.bos_token, "plain text begins with another token"


@pytest.mark.parametrize("positions", ["lastContent", "all"])
def test_the_end_of_a_turn_is_read_like_any_other_token(model, tmp_path, positions):
    prompts = [
        {"id": f"p{i}", "text": text, "condition": ("target", "neutral")[i % 2]}
        for i, text in enumerate(TEXTS)
    ]
    payload = capture_payload(
        prompts=prompts, positions=positions, maxTokens=200, chat=CHAT,
        calibrationText=["Some words."], hook="blocks.1.hook_resid_pre",
    )  # fmt: skip
    folder, _ = World(model, tmp_path).run(capture, payload)
    found = load_file(folder / "residual.safetensors")["residual"]
    expected = []
    for one in encoded_texts(model, CHAT, TEXTS):
        with torch.no_grad():
            tokens = torch.tensor([one.tokens])
            states = model.hf_model(tokens, output_hidden_states=True).hidden_states[1][0]
        expected.append(states[one.read(positions)])
    assert torch.allclose(found, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_an_answer_that_has_ended_leaves_the_others_as_they_are(model):
    openings = [one.tokens for one in encoded_texts(model, CHAT, TEXTS)]
    vectors = torch.randn(4, model.d_model, generator=torch.Generator().manual_seed(3))
    draws = torch.stack([torch.from_numpy(uniforms(0, text, 0, STEPS)) for text in TEXTS])

    def run(rows, eos):
        return generate(
            model.causal, PLACE, [openings[row] for row in rows], Intervention(vectors[rows]),
            draws[rows], RULE, eos_tokens=eos, pad_token=model.pad_token,
        ).tokens  # fmt: skip

    def logits(row, tokens):
        return next_logits(model, [*openings[row], *tokens], PLACE, adding(vectors[row]))

    everything = [0, 1, 2, 3]
    free = [run([row], frozenset())[0] for row in everything]
    end = free[0][2]
    found = run(everything, frozenset({end}))
    expected = [row[: row.index(end)] if end in row else row for row in free]
    assert_drawn_alike(found, expected, logits, draws, RULE)
    assert len(found[0]) <= 2 and max(map(len, found)) > 2
