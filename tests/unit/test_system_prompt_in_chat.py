"""A system prompt as an arm of a chat: the template's own system message, drawn and measured so."""

import json

import pytest
import torch
from torch.nn import functional

from loopscope.numerics.model.hooks import HookPlace
from loopscope.numerics.statistics.sampling import uniforms
from loopscope.numerics.steering.fixed_text import hashed_positions
from loopscope.state.failures import TerminalFailure
from loopscope.worker.models import load_model
from loopscope.worker.stages.steering import stage as steering
from loopscope.worker.stages.steering.prompted import shared_from
from loopscope.worker.stages.steering.run import prepare
from tests.acceptance.independent_steering import choose
from tests.chat_templates import (
    CHATML,
    DROPS_SYSTEM,
    FOLDS_SYSTEM,
    GEMMA,
    LLAMA3,
    SYSTEM_LAST,
    TURNS,
)
from tests.drawn import next_logits
from tests.stage_world import World, add_steering_inputs, steering_payload, table
from tests.tiny_models import folder_reference, save_chat_model

SYSTEM = "Speak of wine."
PLACEBO = "The road is long and it is old."
PLACE = HookPlace(0, "resid_post")
TEXTS = ["We saw a hill.", "A quiet house"]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """A world of a tiny chat model for each template whose turns it knows."""
    found = {}
    for template in (CHATML, LLAMA3, FOLDS_SYSTEM):
        folder = tmp_path_factory.mktemp("model")
        ref = folder_reference(save_chat_model(folder, template, TURNS[template]))
        model = load_model(ref, folder, "cpu", lambda *_: None)
        world = World(model, tmp_path_factory.mktemp("world"))
        found[template] = add_steering_inputs(world, maxTokens=200)
    return found


def payload(template, *, own=None, **changes):
    chat = {"template": template, "addGenerationPrompt": True}
    return steering_payload(
        chat=chat | ({"system": own} if own else {}),
        openings=[{"id": f"o{i}", "text": text} for i, text in enumerate(TEXTS)],
        neutralText=["The sea is blue.", "Trains go to Rome"],
        **{
            "hook": "blocks.0.hook_resid_post", "arms": ["none", "coarse"], "strengths": [1.0],
            "systemPrompt": SYSTEM, "systemPromptSeparator": "\n", "placeboPrompt": PLACEBO,
            "systemPromptAs": "systemMessage",
        }
        | changes,
    )  # fmt: skip


def by_the_tokenizer(model, system, text):
    turns = [{"role": "system", "content": system}] if system else []
    ids = model.tokenizer.apply_chat_template(
        [*turns, {"role": "user", "content": text}], add_generation_prompt=True
    )["input_ids"]
    return ids if ids[0] == model.bos_token else [model.bos_token, *ids]


@pytest.mark.parametrize("template", [CHATML, LLAMA3, FOLDS_SYSTEM])
@pytest.mark.parametrize(
    ("own", "message"), [(None, SYSTEM), ("Be brief.", f"Be brief.\n{SYSTEM}")]
)
def test_the_arm_has_the_templates_own_system_message(worlds, template, own, message):
    world = worlds[template]
    run = prepare(payload(template, own=own), world.context("a"))
    for number, text in enumerate(TEXTS):
        prompted = by_the_tokenizer(world.model, message, text)
        assert run.tokens_before(number, "systemPrompt") == prompted
        assert run.tokens_before(number, "none") == by_the_tokenizer(world.model, own, text)
        assert run.tokens_before(number, "coarse") == run.tokens_before(number, "none")
        placebo = run.tokens_before(number, "placeboPrompt")
        assert len(placebo) == len(prompted) and placebo != prompted
    words = "".join(map(world.model.written, run.tokens_before(0, "placeboPrompt")))
    assert (PLACEBO * 2)[: len(SYSTEM) - 1] in words, "as many tokens of it, rendered as well"


def kl_by_hand(model, clean, moved, first, text):
    """The mean KL of the next token at the chosen places, of two lists of tokens alike behind."""
    places = hashed_positions(text, first, len(clean) - 1)
    with torch.no_grad():
        a, b = (model.hf_model(torch.tensor([t])).logits[0].double() for t in (clean, moved))
    back = [place - len(clean) for place in places]
    p, q = (functional.log_softmax(logits[back], dim=1) for logits in (a, b))
    return float((p.exp() * (p - q)).sum(dim=1).mean())


@pytest.mark.parametrize(("template", "behind"), [(CHATML, 1), (FOLDS_SYSTEM, 1 + len("|user"))])
def test_its_kl_is_read_where_all_arms_read_the_same_tokens(worlds, template, behind):
    world = worlds[template]
    given = payload(template)
    folder, _ = world.run(steering, given, f"out-{behind}", f"kl-{behind}")
    arms = table(folder / "arms.parquet")
    record = json.loads((folder / "verdict.json").read_text())["system_prompt"]
    for arm, key in (("systemPrompt", "kl"), ("placeboPrompt", "placebo_kl")):
        words = prepare(given, world.context("b")).prompted[arm].neutral_texts
        own = [by_the_tokenizer(world.model, None, text) for text in given["neutralText"]]
        found = [
            kl_by_hand(world.model, clean, moved, behind, text)
            for text, clean, moved in zip(given["neutralText"], own, words, strict=True)
        ]
        kl = arms["kl"][arms["arm"].index(arm)]
        assert kl == pytest.approx(sum(found) / len(found), rel=1e-3, abs=1e-6) and kl > 0
        assert record[key] == kl


def test_it_is_drawn_with_the_numbers_of_the_other_arms(worlds):
    world, given = worlds[CHATML], payload(CHATML)
    folder, _ = world.run(steering, given, "drawn", "drawn")
    samples = table(folder / "steering_samples.parquet")
    run = prepare(given, world.context("b"))
    for arm in ("none", "systemPrompt", "placeboPrompt"):
        rows = [i for i, name in enumerate(samples["arm"]) if name == arm]
        assert len(rows) == len(TEXTS) * given["samplesPerPrompt"]
        for i in rows:
            number, sample = int(samples["prompt_id"][i][1:]), samples["sample"][i]
            before = run.tokens_before(number, arm)
            draws = uniforms(0, f"o{number}", sample, given["maxNewTokens"])
            tokens = samples["tokens"][i]
            for step, token in enumerate(tokens):
                logits = next_logits(world.model, before + tokens[:step], PLACE, lambda h: h)
                assert token in choose(logits, draws[step], given["sampling"]).possibly


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (DROPS_SYSTEM, r"steering\.systemPrompt: the chat template drops the system message"),
        (GEMMA, r"steering\.systemPrompt: the chat template refuses .*System role not supported"),
        (SYSTEM_LAST, r"steering\.systemPrompt: the chat template writes the system message behi"),
    ],
)
def test_a_template_without_a_place_for_it_is_refused_by_name(worlds, template, words):
    world = worlds[FOLDS_SYSTEM]
    with pytest.raises(TerminalFailure, match=words) as failure:
        world.run(steering, payload(template), f"no-{words[-9:]}", f"no-{words[-9:]}")
    assert failure.value.reason == "ChatTemplateRefused"


def test_a_turn_in_its_words_is_refused(worlds):
    given = payload(CHATML, systemPrompt="Be <|im_end|> brief.")
    with pytest.raises(TerminalFailure, match=r"steering\.systemPrompt: .*im_end") as failure:
        prepare(given, worlds[CHATML].context("a"))
    assert failure.value.reason == "SpecialTokenInText"


def test_the_shared_end_never_takes_in_bos():
    assert shared_from([1, 2, 3, 4], []) == 1
    assert shared_from([1, 2, 3, 4], [[1, 9, 2, 3, 4]]) == 1
    assert shared_from([1, 2, 3, 4], [[1, 9, 2, 3, 4], [1, 9, 9, 3, 4]]) == 2
    assert shared_from([1, 2], [[1, 3]]) == 2
