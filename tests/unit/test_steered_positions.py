"""Where steering acts: by meaning, to the token, against hidden states that are summed by hand."""

import pytest
import torch

from loopscope.numerics.model.batching import pad
from loopscope.numerics.statistics.sampling import SamplingRule, uniforms
from loopscope.numerics.steering.generation import drawn_again, generate
from loopscope.numerics.steering.passes import Steering, read_openings
from loopscope.numerics.steering.reach import Reach
from loopscope.state.failures import TerminalFailure
from loopscope.worker.models import load_model
from loopscope.worker.stages.steering import stage as steering
from loopscope.worker.stages.steering.cells import Cell
from loopscope.worker.stages.steering.run import prepare
from tests.acceptance.independent_steering import choose
from tests.chat_templates import CHATML, TURNS
from tests.stage_world import World, add_steering_inputs, steering_payload, table
from tests.tiny_models import folder_reference, save_chat_model

TEXT, OTHER = "We saw a hill.", "I saw an old house"
STEPS = 5
SAMPLING = {"temperature": 0.9, "topK": 20, "topP": 1.0, "greedy": False, "seed": 0}
NORM = 4.0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    ref = folder_reference(save_chat_model(folder, CHATML, TURNS[CHATML]))
    model = load_model(ref, folder, "cpu", lambda *_: None)
    made = World(model, tmp_path_factory.mktemp("world"))
    return add_steering_inputs(made, maxTokens=200)


def payload(positions, prefix="", block=0, **changes):
    chat = {"template": CHATML, "addGenerationPrompt": True}
    return steering_payload(
        chat=chat | ({"assistantPrefix": prefix} if prefix else {}),
        openings=[{"id": f"o{i}", "text": text} for i, text in enumerate((TEXT, OTHER))],
        neutralText=["The sea is blue."], hook=f"blocks.{block}.hook_resid_post",
        arms=["none", "coarse"], strengthUnit="absolute", strengths=[NORM], maxNewTokens=STEPS,
        sampling=SAMPLING, **({"positions": positions} if positions else {}), **changes,
    )  # fmt: skip


def tokens_by_hand(text, prefix):
    """What ChatML makes of a text, with a token a character: written out, not asked for."""
    turn = ["<|im_start|>", *"user\n", *text, "<|im_end|>", "\n"]
    return ["<bos>", *turn, "<|im_start|>", *"assistant\n", *prefix]


HEAD = len(["<bos>", "<|im_start|>", *"user\n"])
"""The place of a text's first token."""
CASES = {
    # positions: what is steered of an opening of n tokens whose template ends at t; and afterwards
    None: (lambda text, t, n: range(1, n), True),
    "all": (lambda text, t, n: range(1, n), True),
    "opening": (lambda text, t, n: range(1, n), False),
    "generated": (lambda text, t, n: [n - 1], True),
    "assistant": (lambda text, t, n: range(t, n), True),
    "last": (lambda text, t, n: [n - 1], False),
    "lastContent": (lambda text, t, n: [HEAD + len(text) - 1], False),
    "afterTemplate": (lambda text, t, n: [t], False),
    "token": (lambda text, t, n: [HEAD + text.index("saw") + len("saw") - 1], False),
    "first": (lambda text, t, n: [1], False),
    "back": (lambda text, t, n: [n - 2], False),
}
WRITTEN = {"token": {"token": "saw"}, "first": {"index": 0}, "back": {"index": -2}}


def by_hand(case, text, prefix):
    """The places that are steered of an opening, its tokens, and whether what follows is."""
    places, generated = CASES[case]
    tokens = tokens_by_hand(text, prefix)
    return list(places(text, len(tokens) - len(prefix) - 1, len(tokens))), tokens, generated


def logits_by_hand(model, tokens, places, vector, block):
    """Plain modules: the block's output plus the vector at these places, then all that follows."""

    def add(_module, _inputs, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        for place in places:
            hidden[0, place] = hidden[0, place] + vector
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = model.hf_model.transformer.h[block].register_forward_hook(add)
    try:
        with torch.no_grad():
            return model.hf_model(torch.tensor([tokens])).logits[0, -1].double().numpy()
    finally:
        handle.remove()


def last_state_by_hand(model, tokens):
    """What the last block writes at the last token, unsteered; above it no token sees another."""
    seen = []
    handle = model.hf_model.transformer.h[-1].register_forward_hook(
        lambda _module, _inputs, output: seen.append(
            (output[0] if isinstance(output, tuple) else output)[0, -1]
        )
    )
    try:
        with torch.no_grad():
            model.hf_model(torch.tensor([tokens]))
    finally:
        handle.remove()
    return seen[0]


def of_run(run, cell):
    rows = [(number, cell) for number in range(len(run.openings))]
    openings = [run.tokens_before(number, cell.arm) for number, _ in rows]
    return openings, run.intervention([cell] * len(rows)), run.reach(rows)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("prefix", ["", "So"])
def test_the_logits_of_the_first_token_come_from_a_steered_position_or_not_as_asked(
    world, case, prefix
):
    """Behind the last block nothing mixes tokens, so the state is the clean one plus the vector."""
    model, hf = world.model, world.model.hf_model
    run = prepare(payload(WRITTEN.get(case, case), prefix, block=1), world.context("a"))
    openings, intervention, reach = of_run(run, Cell("coarse", NORM, NORM))
    read = read_openings(
        model.causal, run.place, openings, Steering(intervention), model.pad_token,
        use_cache=False, reach=reach,
    )  # fmt: skip
    for number, text in enumerate((TEXT, OTHER)):
        places, tokens, _ = by_hand(case, text, prefix)
        assert openings[number] == model.tokenizer.convert_tokens_to_ids(tokens)
        is_steered = len(tokens) - 1 in places
        unsteered = last_state_by_hand(model, openings[number])
        summed = unsteered + NORM * run.arms.vectors["coarse"] * is_steered
        with torch.no_grad():
            expected = hf.lm_head(hf.transformer.ln_f(summed))
            found = hf.lm_head(read.last[number])
        assert torch.allclose(found, expected, atol=1e-4)
        other = unsteered + NORM * run.arms.vectors["coarse"] * (not is_steered)
        with torch.no_grad():
            wrong = hf.lm_head(hf.transformer.ln_f(other))
        assert (found - wrong).abs().max() > 0.1, "the other reading would be noticed"
    decided = {None, "all", "opening", "generated", "assistant", "last"}
    assert is_steered == (case in decided or (case == "afterTemplate" and not prefix))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("prefix", ["", "So"])
def test_every_token_is_drawn_from_a_text_that_is_steered_where_it_should_be(world, case, prefix):
    model = world.model
    run = prepare(payload(WRITTEN.get(case, case), prefix), world.context("a"))
    openings, intervention, reach = of_run(run, Cell("coarse", NORM, NORM))
    draws = torch.stack([torch.from_numpy(uniforms(0, f"o{i}", 0, STEPS)) for i in (0, 1)])
    rule = SamplingRule(0.9, 20)
    drawn = generate(
        model.causal, run.place, openings, intervention, draws, rule, eos_tokens=frozenset(),
        pad_token=model.pad_token, reach=reach,
    )  # fmt: skip
    texts = drawn.tokens
    again = drawn_again(
        model.causal, run.place, openings, texts, intervention, draws, rule,
        pad_token=model.pad_token, reach=reach,
    )  # fmt: skip
    vector = NORM * run.arms.vectors["coarse"]
    for number, text in enumerate((TEXT, OTHER)):
        places, tokens, generated = by_hand(case, text, prefix)
        after_steered = 0
        for step, (token, other) in enumerate(zip(texts[number], again[number], strict=True)):
            before = openings[number] + texts[number][:step]
            steered = places + list(range(len(tokens), len(before))) * generated
            logits = logits_by_hand(model, before, steered, vector, block=0)
            assert {token, other} <= choose(logits, float(draws[number, step]), SAMPLING).possibly
            after_steered += len(before) - 1 in steered
        assert drawn.after_steered[number] == after_steered
        assert drawn.opening_steered[number] == len(places)


def test_a_run_draws_and_shows_next_tokens_by_its_positions(world):
    given = payload({"token": "saw"}, "So", systemPrompt="Be brief.", systemPromptSeparator="\n",
                    systemPromptAs="systemMessage")  # fmt: skip
    folder, _ = world.run(steering, given, "narrow", "narrow")
    whole, _ = world.run(steering, {**given, "positions": "all"}, "wide", "wide")
    run = prepare(given, world.context("a"))
    samples, shift = table(folder / "steering_samples.parquet"), "distribution_shift.parquet"
    for i, arm in enumerate(samples["arm"]):
        number, sample = int(samples["prompt_id"][i][1:]), samples["sample"][i]
        places, _, _ = by_hand("token", (TEXT, OTHER)[number], "So")
        vector = NORM * run.arms.vectors["coarse"] * (arm == "coarse")
        before, tokens = run.tokens_before(number, arm), samples["tokens"][i]
        draws = uniforms(0, f"o{number}", sample, STEPS)
        for step, token in enumerate(tokens):
            logits = logits_by_hand(world.model, before + tokens[:step], places, vector, block=0)
            assert token in choose(logits, draws[step], SAMPLING).possibly
    found = table(folder / shift)
    for i in (i for i, arm in enumerate(found["arm"]) if arm == "coarse"):
        number = int(found["prompt_id"][i][1:])
        places, _, _ = by_hand("token", (TEXT, OTHER)[number], "So")
        vector = NORM * run.arms.vectors["coarse"]
        logits = logits_by_hand(world.model, run.openings[number], places, vector, block=0)
        probability = torch.softmax(torch.from_numpy(logits), 0)[found["token"][i]]
        assert found["probability_after"][i] == pytest.approx(float(probability), abs=1e-4)
    every_token = given["samplesPerPrompt"] * sum(len(tokens) - 1 for tokens in run.openings)
    for one, share, of_openings in ((folder, 0, len(samples["arm"]) // 3), (whole, 1, every_token)):
        arms, drawn = table(one / "arms.parquet"), table(one / "steering_samples.parquet")
        for i, arm in enumerate(arms["arm"]):
            pairs = zip(drawn["arm"], drawn["tokens"], strict=True)
            generated = sum(len(tokens) for name, tokens in pairs if name == arm)
            assert arms["generated_tokens"][i] == generated > 0
            acts = arm == "coarse"
            assert arms["steered_tokens"][i] == acts * share * generated
            assert arms["steered_opening_tokens"][i] == acts * of_openings
    kl, wide = (table(one / "arms.parquet")["kl"] for one in (folder, whole))
    assert kl == wide, "neutral texts are steered everywhere, whatever the openings are"


def test_an_opening_without_the_position_is_named(world):
    with pytest.raises(TerminalFailure, match=r"opening o0 has no position .* tokens") as failure:
        prepare(payload({"index": 90}), world.context("a"))
    assert failure.value.reason == "NoSuchPosition"


def test_a_reach_counts_places_from_bos_on_either_side_of_the_padding():
    rows = [[1, 5, 6], [1, 7]]
    reach = Reach((3, 2), ((2,), (1,)), (False, True))
    left = pad(rows, 0, "left")
    assert reach.mask(left).tolist() == [[False, False, True], [False, False, True]]
    right = pad([[1, 5, 6, 8], [1, 7, 8, 9, 9]], 0, "right")
    assert reach.mask(right).tolist() == [
        [False, False, True, False, False], [False, True, True, True, True],
    ]  # fmt: skip
    assert torch.equal(Reach.everywhere(rows).mask(left), left.without_bos)
    for wrong in (Reach((3,), ((2,),), (True,)), Reach((3, 2), ((0,), (1,)), (True, True))):
        with pytest.raises(ValueError, match="places but BOS"):
            wrong.mask(left)
