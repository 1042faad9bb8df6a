"""Damage by the stage: each number against plain code, paired, and nothing where nothing steers."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from loopscope.numerics.model.hooks import steered
from loopscope.numerics.steering.answering import likeliest, log_probability
from loopscope.numerics.steering.fixed_text import hashed_positions
from loopscope.specs.choices import FAMILIES, choices
from loopscope.worker.stages.damage import stage as damage
from loopscope.worker.stages.steering import stage as steering
from loopscope.worker.stages.steering.run import prepare
from tests.stage_world import (
    NEUTRAL,
    World,
    add_steering_inputs,
    contents,
    interrupted_and_resumed,
    steering_payload,
    table,
)

ITEMS = choices(["france"])[::6]
SIDES = {"rome": ["rome", "beer", "the"]}


@pytest.fixture(scope="module")
def world(rope_model, tmp_path_factory):
    made = add_steering_inputs(World(rope_model, tmp_path_factory.mktemp("damage")))
    made.work = steering_payload(maxNewTokens=4)
    made.run(steering, made.work, "steering", "steering")
    made.found, made.numbers = tried(made, "damage", maxLoss=0.5)
    return made


def tried(world, out, **changes):
    work = {**world.work, "neutralText": [], "lexicon": [], "siblings": []}
    payload = {"texts": NEUTRAL, "choices": ITEMS, "sides": SIDES, "work": work,
               "steered": {"digest": "s"}, **changes}  # fmt: skip
    return world.run(damage, payload, out, out)


def shares(folder, measure):
    rows = table(folder / "damage.parquet")
    named = zip(rows["arm"], rows["strength"], rows["measure"], strict=True)
    return {
        (arm, strength): {name: rows[name][n] for name in rows}
        for n, (arm, strength, own) in enumerate(named)
        if own == measure
    }


def logits_of(world, cell, tokens):
    """Return the logits after each token of a text under a cell, in one plain pass."""
    run = prepare({**world.work, "neutralText": [], "lexicon": [], "siblings": []},
                  world.context("plain"))  # fmt: skip
    arms = table(world.folder / "steering/arms.parquet")
    norm = dict(zip(zip(arms["arm"], arms["strength"], strict=True), arms["norm"], strict=True))
    vector = run.arms.vectors.get(cell[0], torch.zeros(run.model.d_model)) * norm[cell]
    mask = torch.ones(1, len(tokens), 1)
    mask[0, 0] = 0.0
    model = run.model.causal
    with steered(model, run.place, lambda hidden: hidden + vector * mask), torch.no_grad():
        inputs = torch.tensor([tokens])
        output = model.body(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            position_ids=torch.arange(len(tokens))[None],
            use_cache=False,
        )
    return model.head(output.last_hidden_state[0])


@pytest.mark.parametrize("cell", [("none", 0.0), ("multi", 2.0), ("random-0", 0.5)])
def test_the_next_token_is_that_of_a_plain_pass(world, cell):
    expected = []
    for text in NEUTRAL:
        tokens = world.model.encode(text)
        positions = hashed_positions(text, 1, len(tokens) - 2)
        if len(tokens) <= 2:
            continue
        best = logits_of(world, cell, tokens).argmax(dim=1)
        expected.append(np.mean([best[p].item() == tokens[p + 1] for p in positions]))
    assert shares(world.found, "next_token")[cell]["share"] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("cell", [("none", 0.0), ("coarse", 2.0)])
def test_an_option_is_chosen_by_the_log_probability_of_a_plain_pass(world, cell):
    rows = table(world.found / "choices.parquet")
    own = [n for n in range(len(rows["arm"])) if (rows["arm"][n], rows["strength"][n]) == cell]
    for n, item in zip(own, ITEMS, strict=True):
        prompt = world.model.encode(item["prompt"])
        found = []
        for option in item["options"]:
            tokens = world.model.encode(item["prompt"] + option)
            assert tokens[: len(prompt)] == prompt
            logs = logits_of(world, cell, tokens).double().log_softmax(dim=1)
            spans = range(len(prompt), len(tokens))
            found.append(sum(logs[p - 1, tokens[p]].item() for p in spans))
        right = found[item["right"]]
        others = [value for place, value in enumerate(found) if place != item["right"]]
        assert rows["margin"][n] == pytest.approx(right - max(others), abs=1e-4)
        if abs(right - max(others)) > 1e-3:
            chosen = rows["chosen"][n] == item["options"][item["right"]].strip()
            assert chosen == (right > max(others))


def test_unsteered_text_has_no_change_and_everything_else_is_paired_with_it(world):
    for measure in ("next_token", "choices", "side:rome"):
        found = shares(world.found, measure)
        before = found["none", 0.0]
        assert math.isnan(before["change"])
        for cell, row in found.items():
            if cell != ("none", 0.0):
                assert row["change"] == pytest.approx(row["share"] - before["share"])
                assert 0 <= row["p_holm"] <= 1
    assert {math.isnan(row["p_holm"]) for row in shares(world.found, FAMILIES[0]).values()} == {
        True
    }


def test_an_interval_of_items_is_wilsons(world):
    row = shares(world.found, "choices")["none", 0.0]
    hits = round(row["share"] * row["n"])
    expected = binomtest(hits, row["n"]).proportion_ci(method="wilson")
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))


def test_openings_move_either_way_or_not(world):
    wrong, right = (shares(world.found, name) for name in ("wrong_way", "right_way"))
    scores = table(world.folder / "steering/steering_scores.parquet")

    def mean(opening, cell):
        rows = zip(scores["prompt_id"], scores["arm"], scores["strength"], scores["concept"],
                   strict=True)  # fmt: skip
        return np.mean([c for o, a, s, c in rows if (o, a, s) == (opening, *cell)])

    openings = sorted(set(scores["prompt_id"]))
    for cell in wrong:
        moved = [mean(o, cell) - mean(o, ("none", 0.0)) for o in openings]
        assert wrong[cell]["share"] == pytest.approx(np.mean([m < 0 for m in moved]))
        assert right[cell]["share"] == pytest.approx(np.mean([m > 0 for m in moved]))
    assert ("none", 0.0) not in wrong


def test_the_limit_holds_where_the_whole_interval_stays_below_it(world):
    lows = [
        -row["change_low"]
        for measure in ("next_token", "choices")
        for (arm, _), row in shares(world.found, measure).items()
        if arm == "multi"
    ]
    assert world.numbers["holds"] is all(one < 0.5 for one in lows)
    assert tried(world, "strict", maxLoss=1e-6)[1]["holds"] is False
    assert tried(world, "free")[1]["holds"] is None


def test_a_stop_changes_no_byte(world):
    work = {**world.work, "neutralText": [], "lexicon": [], "siblings": []}
    payload = {"texts": NEUTRAL, "choices": ITEMS, "sides": SIDES, "maxLoss": 0.5, "work": work,
               "steered": {"digest": "s"}}  # fmt: skip
    assert interrupted_and_resumed(world, damage, payload, 5) == contents(world.found)


def test_items_with_a_word_of_the_lexicon_are_left_out_and_each_family_is_there():
    items = choices(["Paris"])
    texts = [json.dumps(item) for item in items]
    assert items and not any("Paris" in text for text in texts)
    assert {item["family"] for item in items} == set(FAMILIES)
    everything = choices(["no such word"])
    assert [sum(i["family"] == f for i in everything) for f in FAMILIES] == [24, 24, 24]
    assert all(len(set(item["options"])) == len(item["options"]) for item in everything)
    assert len({item["prompt"] for item in everything}) == len(everything)
    by_name = {item["prompt"]: item["options"][item["right"]] for item in everything}
    assert by_name["The capital of Norway is"] == " Oslo"
    assert by_name["Nine plus ten equals"] == " nineteen"
    assert by_name["The keys beside the cabinet"] == " are"
    assert by_name["The key beside the cabinets"] == " is"


def test_a_token_is_found_in_whichever_chunk_it_lies(monkeypatch, rope_model):
    from loopscope.numerics.model import causal_model

    monkeypatch.setattr(causal_model, "VOCABULARY_PER_CHUNK", 7)
    head = rope_model.causal.head
    hidden = torch.randn(5, rope_model.d_model, generator=torch.Generator().manual_seed(0))
    logits = head(hidden)
    tokens = logits.argmax(dim=1)
    assert torch.equal(likeliest(head, hidden), tokens)
    found = log_probability(head, hidden, tokens)
    expected = logits.double().log_softmax(dim=1).gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(found, expected)
