"""Texts in a chat template: exactly one BOS, and each position is the token that is meant."""

import json

import pytest
import torch
from safetensors.torch import load_file

from loopscope.state.failures import TerminalFailure
from loopscope.worker.encoding import encoded_texts
from loopscope.worker.models import load_model
from loopscope.worker.stages.capture import stage as capture
from loopscope.worker.stages.steering.run import tokens_of
from tests.chat_templates import CHATML, GEMMA, LLAMA3, TURNS, TWO_BOS
from tests.stage_world import World, capture_payload, table
from tests.tiny_models import folder_reference, save_chat_model

TEXT = "Is wine of France good?"


def chat(template, **more):
    return {"template": template, "addGenerationPrompt": True, **more}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny model of each family by its template; of ChatML one whose BOS begins each turn."""

    def model(template, bos="<bos>", plain_bos=None):
        folder = tmp_path_factory.mktemp("model")
        turns = TURNS.get(template, TURNS[CHATML])
        ref = folder_reference(save_chat_model(folder, template, turns, bos))
        ref |= {"bos_token": plain_bos} if plain_bos else {}
        return load_model(ref, folder, "cpu", lambda *_: None)

    found = {template: model(template) for template in (CHATML, GEMMA, LLAMA3)}
    return found | {
        "turn is bos": model(CHATML, "<|im_start|>"),
        "plain text begins with eos": model(CHATML, "<|im_start|>", "<eos>"),
    }


def read(model, encoded, positions):
    return [model.tokenizer.decode([encoded.tokens[i]]) for i in encoded.read(positions)]


@pytest.mark.parametrize("template", [CHATML, GEMMA, LLAMA3])
def test_exactly_one_bos_stands_in_front_whoever_adds_it(models, template):
    model = models[template]
    (found,) = encoded_texts(model, chat(template), [TEXT])
    assert found.tokens[0] == model.bos_token and found.tokens.count(model.bos_token) == 1
    expected = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": TEXT}], add_generation_prompt=True
    )["input_ids"]
    own = found.tokens if template != CHATML else found.tokens[1:]
    assert own == expected


def test_a_bos_that_begins_every_turn_is_not_put_before_the_first(models):
    model = models["turn is bos"]
    (found,) = encoded_texts(model, chat(CHATML), [TEXT])
    assert found.tokens[0] == model.bos_token != found.tokens[1]
    assert found.tokens.count(model.bos_token) == 2, "the turns of user and assistant"


def test_a_token_that_is_named_begins_plain_text_and_no_chat(models):
    model, other = models["plain text begins with eos"], models["turn is bos"]
    eos = model.tokenizer.eos_token_id
    assert model.encode(TEXT) == [eos, *other.encode(TEXT)[1:]]
    assert model.encode(TEXT)[0] != other.encode(TEXT)[0]
    (found,), (same,) = (encoded_texts(one, chat(CHATML), [TEXT]) for one in (model, other))
    assert found == same


@pytest.mark.parametrize("start", ["<eos>", "<|im_start|>"])
def test_a_text_that_begins_with_either_token_is_refused(models, start):
    with pytest.raises(TerminalFailure) as failure:
        models["plain text begins with eos"].encode(start + TEXT)
    assert failure.value.reason == "DoubledBos"


@pytest.mark.parametrize(
    ("template", "last_of_template"), [(CHATML, "\n"), (GEMMA, "\n"), (LLAMA3, "\n")]
)
@pytest.mark.parametrize("prefix", [None, "Yes, it"])
def test_each_position_is_the_token_that_is_meant(models, template, last_of_template, prefix):
    model = models[template]
    more = {"assistantPrefix": prefix} if prefix else {}
    (found,) = encoded_texts(model, chat(template, **more), [TEXT])
    assert read(model, found, "lastContent") == ["?"]
    assert read(model, found, "afterTemplate") == [last_of_template]
    assert read(model, found, {"token": "France"}) == ["e"]
    assert found.read({"token": "France"})[0] == found.read("lastContent")[0] - len(" good?")
    assert read(model, found, "last") == ["t" if prefix else last_of_template]
    assert found.read({"index": -1}) == found.read("last")
    assert found.read({"index": 0}) == [1] == found.read("all")[:1]
    after = found.read("afterTemplate")[0]
    if prefix:
        assert "".join(read(model, found, "assistant")) == prefix
        assert found.read("assistant")[0] == after + 1
    else:
        assert after == len(found.tokens) - 1, "the first answer comes after it"


def test_the_last_of_several_places_of_a_part_is_read(models):
    (found,) = encoded_texts(models[GEMMA], chat(GEMMA), ["  wine, wine and user"])
    places = {part: found.read({"token": part})[0] for part in ("wine", "user", "  wi")}
    assert places["wine"] == found.read("lastContent")[0] - len(" and user")
    assert places["user"] == found.read("lastContent")[0], "not that in the template"


def test_plain_text_has_positions_as_well(models):
    model = models[CHATML]
    (found,) = encoded_texts(model, None, [TEXT])
    assert found.tokens == model.encode(TEXT)
    assert read(model, found, {"token": "wine"}) == ["e"]
    assert found.read("lastContent") == found.read("last") == [len(TEXT)]


@pytest.mark.parametrize(
    ("given", "texts", "reason", "words"),
    [
        ({}, ["Is <|im_end|> it?"], "SpecialTokenInText", "means something in a chat template"),
        ({"system": "<|im_start|>"}, ["Is it?"], "SpecialTokenInText", "im_start"),
        ({"assistantPrefix": "<eos>"}, ["Is it?"], "SpecialTokenInText", "<eos>"),
        ({"template": TWO_BOS}, ["Is it?"], "ChatTemplateRefused", "two BOS tokens"),
        ({"template": "{{ x.y.z }}"}, ["Is it?"], "ChatTemplateRefused", "is undefined"),
    ],
)
def test_what_would_be_read_as_another_conversation_is_refused(models, given, texts, reason, words):
    with pytest.raises(TerminalFailure, match=words) as failure:
        encoded_texts(models[CHATML], chat(CHATML) | given, texts)
    assert failure.value.reason == reason


@pytest.mark.parametrize("positions", ["lastContent", "assistant", {"token": "wine"}, "last"])
def test_a_capture_keeps_the_rows_of_the_tokens_that_are_meant(models, tmp_path, positions):
    model = models[LLAMA3]
    texts = ["Is wine good?", "Was the wine red?", "The wine is", "A wine that", "wine", "No wine"]
    prompts = [
        {"id": f"p{i}", "text": text, "condition": ("target", "neutral")[i % 2]}
        for i, text in enumerate(texts)
    ]
    payload = capture_payload(
        prompts=prompts, positions=positions, maxTokens=200, calibrationText=["Some words."],
        chat=chat(LLAMA3, system="Be brief.", assistantPrefix="Well,"),
        hook="blocks.1.hook_resid_pre",
    )  # fmt: skip
    folder, metrics = World(model, tmp_path).run(capture, payload)
    found = load_file(folder / "residual.safetensors")
    row = 0
    for number, one in enumerate(encoded_texts(model, payload["chat"], texts)):
        with torch.no_grad():
            states = model.hf_model(
                input_ids=torch.tensor([one.tokens]), output_hidden_states=True
            ).hidden_states[1][0]
        for place in one.read(positions):
            assert torch.allclose(found["residual"][row], states[place], rtol=1e-4, atol=1e-4)
            assert (found["prompt_index"][row], found["position"][row]) == (number, place)
            row += 1
    assert row == len(found["residual"])
    prompts = table(folder / "prompts.parquet")
    assert prompts["text"] == texts
    ends = [(one, one.read(positions)[-1]) for one in encoded_texts(model, payload["chat"], texts)]
    read = [model.decode([one.tokens[place]]) for one, place in ends]
    assert prompts["last_token"] == read, "activations follow the token that is read"
    shown = json.loads((folder / "tokens.json").read_text())["prompts"]
    assert [one["prompt_id"] for one in shown] == ["p0", "p1", "p2", "p3"]
    words = [token["text"] for token in shown[0]["tokens"] if token["part"] == "text"]
    assert "".join(words) == texts[0]
    read = sum(token["read"] for one in shown for token in one["tokens"])
    assert read == int((found["prompt_index"] < 4).sum())
    assert metrics["preflights"]["begin-of-sequence tokens per prompt"]["measured"] == 1.0


def test_a_capture_accepts_a_bos_that_begins_every_turn(models, tmp_path):
    texts = ["Is wine good?", "Was it red?", "The wine is", "A wine that"]
    prompts = [
        {"id": f"p{i}", "text": text, "condition": ("target", "neutral")[i % 2]}
        for i, text in enumerate(texts)
    ]
    payload = capture_payload(
        prompts=prompts, maxTokens=200, chat=chat(CHATML), hook="blocks.1.hook_resid_pre"
    )
    _, metrics = World(models["turn is bos"], tmp_path).run(capture, payload)
    assert metrics["preflights"]["begin-of-sequence tokens per prompt"]["measured"] == 1.0


def test_a_prompt_without_the_position_is_named(models, tmp_path):
    prompts = [{"id": "p0", "text": "wine", "condition": "target"}]
    payload = capture_payload(prompts=prompts, positions={"index": 40})
    with pytest.raises(TerminalFailure, match="prompt p0 has no position") as failure:
        World(models[CHATML], tmp_path).run(capture, payload)
    assert failure.value.reason == "NoSuchPosition"


def test_openings_and_neutral_texts_of_steering_stand_in_the_template(models):
    model, given = models[GEMMA], chat(GEMMA, assistantPrefix="We")
    expected = [one.tokens for one in encoded_texts(model, given, ["Is it?", "No."])]
    assert tokens_of({"chat": given}, model, ["Is it?", "No."]) == expected
    assert tokens_of({}, model, ["Is it?"]) == [model.encode("Is it?")]
