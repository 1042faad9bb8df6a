"""What generated texts show when they are read again, against plain Hugging Face and NumPy."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from loopscope.numerics.steering.fixed_text import hashed_positions
from loopscope.worker.stages.steering import generating
from loopscope.worker.stages.steering import stage as steering
from loopscope.worker.stages.steering.run import prepare
from tests.stage_world import (
    NEUTRAL,
    TARGET,
    contents,
    interrupted_and_resumed,
    steering_payload,
    table,
)

SIBLINGS = ["germany", "berlin", "japan", "tokyo", "rome", "beer"]
LAYER = 1


def payload(**changes):
    chosen = {
        "arms": ["none", "coarse", "fine", "multi"],
        "samplesPerPrompt": 1,
        "strengths": [2.0],
    }
    return steering_payload(**chosen | {"siblings": SIBLINGS} | changes)


def states_of(model, opening, tokens, layer):
    ids = torch.tensor([[*model.encode(opening), *tokens]])
    with torch.no_grad():
        hidden = model.hf_model(input_ids=ids, output_hidden_states=True).hidden_states[layer + 1]
    return hidden[0, -len(tokens) :].double().numpy()


def by_cell(scores, samples, opening_texts):
    return [
        {name: values[i] for name, values in scores.items()}
        | {"tokens": samples["tokens"][i], "text": samples["text"][i]}
        | {"opening": opening_texts[samples["prompt_id"][i]]}
        for i in range(len(samples["text"]))
    ]


@pytest.fixture
def found(steering_world):
    spec = payload()
    folder, _ = steering_world.run(steering, spec)
    openings = {opening["id"]: opening["text"] for opening in spec["openings"]}
    scores, samples = (table(folder / f"steering_{n}.parquet") for n in ("scores", "samples"))
    return steering_world, folder, by_cell(scores, samples, openings)


def test_the_target_latent_is_its_mean_activation_over_the_generated_tokens(found):
    world, _, rows = found
    for row in rows[::3]:
        states = states_of(world.model, row["opening"], row["tokens"], LAYER)
        # the anchor is coarse latent 0, whose encoder and decoder row is unit vector 0
        expected = np.maximum(states[:, 0], 0).mean()
        assert row["target_latent"] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def states_at_positions(model, text, before=""):
    """The residual stream at the hook at the chosen positions of a text, after ``before``."""
    prefix = model.encode(before)[1:] if before else []
    tokens = model.encode(text)
    positions = [p + len(prefix) for p in hashed_positions(text, 1, len(tokens) - 1)]
    ids = torch.tensor([[tokens[0], *prefix, *tokens[1:]]])
    with torch.no_grad():
        hidden = model.hf_model(input_ids=ids, output_hidden_states=True).hidden_states[LAYER + 1]
    return hidden[0, positions].double().numpy()


def test_what_else_an_arm_moves_is_read_from_fixed_texts_without_the_targets(steering_world):
    words = "people liked wine"
    spec = payload(systemPrompt=words, systemPromptSeparator="")
    folder, _ = steering_world.run(steering, spec)
    arms = table(folder / "arms.parquet")
    run = prepare(spec, steering_world.context("check"))
    for i, arm in enumerate(arms["arm"]):
        vector = run.arms.vectors.get(arm, torch.zeros(run.model.d_model)).double().numpy()
        for side, latents, targets in (("coarse", 8, [0, 2]), ("fine", 16, [1, 2])):
            others = [latent for latent in range(latents) if latent not in targets]
            changed = before = 0.0
            for text in spec["neutralText"]:
                clean = states_at_positions(run.model, text)
                moved = states_at_positions(run.model, text, words * (arm == "systemPrompt"))
                moved = moved + arms["norm"][i] * vector
                a, b = (np.maximum(x, 0)[:, others] for x in (moved, clean))
                changed, before = changed + np.abs(a - b).sum(), before + b.sum()
            found = arms[f"fixed_text_change_{side}"][i]
            assert found == pytest.approx(changed / before, rel=1e-3, abs=1e-4)
            if arm == "none":
                assert found == 0, "an unsteered text differs from itself by nothing"
            if arm == "systemPrompt":
                assert found > 0


def test_the_probe_reads_another_block_and_scores_probabilities(found):
    world, folder, rows = found
    verdict = json.loads((folder / "verdict.json").read_text())
    last = world.model.n_layers - 1
    assert verdict["probe"]["hook"] == f"blocks.{min(last, (2 + last) // 2)}.hook_resid_post"
    assert verdict["probe"]["prompts"] == [len(TARGET), len(NEUTRAL)]
    assert verdict["probe"]["auroc"] is None, "too few prompts to hold some out"
    assert (verdict["probe"]["auroc_low"], verdict["probe"]["auroc_high"]) == (None, None)
    assert all(0 <= row["probe"] <= 1 for row in rows)


def test_targetedness_is_the_concept_less_its_siblings(found):
    _, _, rows = found
    for row in rows:
        words = set(row["text"].split())
        sibling = float(bool(words & set(SIBLINGS)))
        assert row["sibling"] == sibling
        assert row["targetedness"] == row["concept"] - sibling


def test_secondary_outcomes_are_all_there_and_without_siblings_two_fewer(found):
    world, folder, _ = found
    names = {"log_perplexity", "probe", "target_latent"}
    verdict = json.loads((folder / "verdict.json").read_text())
    assert {line["outcome"] for line in verdict["secondary"]} == names | {
        "targetedness", "distinct_2", "different_words", "concept_unpromoted",
    }  # fmt: skip
    without, _ = world.run(steering, payload(siblings=[]), "without", "without")
    assert "sibling" not in table(without / "arms.parquet")
    assert "targetedness" not in table(without / "steering_scores.parquet")


def test_the_shift_table_is_that_of_plain_hugging_face(found):
    world, folder, _ = found
    shift = table(folder / "distribution_shift.parquet")
    assert "none" not in shift["arm"]
    opening = payload()["openings"][1]
    with torch.no_grad():
        logits = world.model.hf_model(
            input_ids=torch.tensor([world.model.encode(opening["text"])])
        ).logits[0, -1]  # fmt: skip
    before = torch.softmax(logits.double(), dim=-1)
    seen = 0
    for i, prompt in enumerate(shift["prompt_id"]):
        if prompt != opening["id"]:
            continue
        seen += 1
        token = shift["token"][i]
        assert shift["probability_before"][i] == pytest.approx(float(before[token]), rel=1e-3)
        # tokens that are equally likely but for rounding may rank either way
        above, level = before > before[token] * (1 + 1e-5), before > before[token] * (1 - 1e-5)
        assert 1 + int(above.sum()) <= shift["rank_before"][i] <= int(level.sum())
        arrived = shift["rank_after"][i] <= 10 < shift["rank_before"][i]
        assert shift["new_arrival"][i] == arrived
    assert seen >= 3 * 10


def test_texts_that_are_still_to_be_read_count_as_left(steering_world, monkeypatch):
    real, seen = generating.read_again, []

    def read_again(*arguments):
        seen.append(steering_world.calls[-1])
        return real(*arguments)

    monkeypatch.setattr(generating, "read_again", read_again)
    monkeypatch.setattr(generating, "ROWS_PER_BATCH_MAX", 4)
    steering_world.run(steering, payload())
    counted = [call[:3] for call in steering_world.calls if call[0] == "Generating"]
    assert len(seen) == 3 and [phase for phase, *_ in seen] == ["Generating"] * 3
    assert [done / total for _, done, total, _ in seen] == [1 / 6, 3 / 6, 5 / 6]
    assert counted == sorted(counted) and counted[-1][1] == counted[-1][2]


@pytest.mark.parametrize("before_the_end", [2, 6])
def test_a_resumed_reading_has_the_bytes_of_an_undisturbed_one(steering_world, before_the_end):
    steering_world.calls = []
    whole = contents(steering_world.run(steering, payload())[0])
    stop_at = len(steering_world.calls) - before_the_end
    assert interrupted_and_resumed(steering_world, steering, payload(), stop_at) == whole


def test_a_text_without_tokens_has_no_outcomes_of_reading(steering_world, monkeypatch):
    real = generating.generate

    def silent_first(*arguments, **named):
        found = real(*arguments, **named)
        return replace(found, tokens=[[], *found.tokens[1:]])

    monkeypatch.setattr(generating, "generate", silent_first)
    monkeypatch.setattr(steering, "replay_preflight", lambda *_: {})  # it would find that out
    folder, _ = steering_world.run(steering, payload())
    scores = table(folder / "steering_scores.parquet")
    silent = [i for i, value in enumerate(scores["perplexity"]) if math.isnan(value)]
    assert len(silent) == 1
    assert math.isnan(scores["probe"][silent[0]])
    assert scores["concept"][silent[0]] == 0.0
