"""Answers by the stage: a text token by token, and how it goes on under an arm."""

import numpy as np
import pytest
import torch

from loopscope.state.failures import TerminalFailure
from loopscope.worker.stages.question import stage as question
from loopscope.worker.stages.steering import stage as steering
from tests.artifact_world import question_payload
from tests.stage_world import HOOK, OPENINGS, World, add_steering_inputs, steering_payload, table

TEXT = "people in lyon liked cheese"
ARM, STRENGTH = "multi", 2.0


@pytest.fixture(scope="module")
def world(rope_model, tmp_path_factory):
    made = add_steering_inputs(World(rope_model, tmp_path_factory.mktemp("question")))
    made.dictionaries |= {"c": made.dictionaries["coarse"], "f": made.dictionaries["fine"]}
    made.run(steering, steering_payload(samplesPerPrompt=1), "steering", "steering")
    return made


def asked(world, latents=None, **changes):
    payload = {**question_payload(world, steered=False), "text": TEXT}
    return {**payload, **({"latents": latents} if latents else {}), **changes}


def asked_of_arm(opening, arm=ARM, strength=STRENGTH, **changes):
    work = steering_payload(
        arms=["none", *([arm] if arm in ("coarse", "fine", "multi") else ["random"])],
        openings=[opening], neutralText=[], lexicon=[], samplesPerPrompt=1, **changes,
    )  # fmt: skip
    steered = {
        "asked": {"arm": arm, "strength": strength}, "work": work, "answered": {"digest": "s"},
    }  # fmt: skip
    return {"model": {}, "hook": HOOK, "text": opening["text"], "steered": steered}


def answers(folder):
    return table(folder / "answers.parquet")


def test_the_activations_are_those_of_the_dictionary_on_the_stream_of_hugging_face(world):
    folder, metrics = world.run(question, asked(world), "latents", "latents")
    tokens = torch.tensor([world.model.encode(TEXT)])
    block = int(HOOK.split(".")[1])
    seen = world.model.hf_model(tokens, output_hidden_states=True).hidden_states[block + 1][0]
    found = table(folder / "question_activations.parquet")
    for side, name, latents in (("coarse", "c", [0]), ("fine", "f", [0, 3])):
        expected = world.dictionaries[name].activations(seen, latents)[1:]
        own = np.zeros(expected.shape)
        for s, latent, place, value in zip(*found.values(), strict=True):
            if s == side:
                own[place - 1, latents.index(latent)] = value
        np.testing.assert_allclose(own, expected.numpy(), rtol=1e-4, atol=1e-5)
    words = table(folder / "question_tokens.parquet")
    assert "".join(words["text"]) == TEXT and not any(words["steered"])
    assert metrics == {
        "tokens": tokens.shape[1] - 1, "firings": len(found["place"]), "answers": 0,
    }  # fmt: skip


def test_an_opening_of_the_steering_goes_on_as_it_did_there(world):
    opening = {"id": "o1", "text": OPENINGS[1]}
    folder, metrics = world.run(question, asked_of_arm(opening), "again", "again")
    found = answers(folder)
    before = table(world.folder / "steering" / "steering_samples.parquet")
    known = {
        (arm, strength): (text, tokens)
        for prompt, arm, strength, _, text, tokens in zip(*before.values(), strict=True)
        if prompt == "o1"
    }
    assert found["arm"] == ["none", ARM] and metrics["answers"] == 2
    assert (found["text"][0], found["tokens"][0]) == known["none", 0.0]
    assert (found["text"][1], found["tokens"][1]) == known[ARM, STRENGTH]
    assert found["after_steered"] == [0, len(found["tokens"][1])]
    assert all(table(folder / "question_tokens.parquet")["steered"])


def test_the_vector_is_as_long_as_the_table_of_arms_says(world):
    folder, _ = world.run(question, asked_of_arm({"id": "q", "text": TEXT}), "norm", "norm")
    arms = table(world.folder / "steering" / "arms.parquet")
    (norm,) = [
        norm
        for arm, strength, norm in zip(arms["arm"], arms["strength"], arms["norm"], strict=True)
        if (arm, strength) == (ARM, STRENGTH)
    ]
    assert answers(folder)["norm"] == [0.0, norm]


def test_another_norm_is_in_proportion_and_another_budget_is_refused_with_those_there_are(world):
    opening = {"id": "q", "text": TEXT}
    folder, _ = world.run(question, asked_of_arm(opening, strength=1.0), "half", "half")
    whole = answers(world.folder / "norm")["norm"][1]
    assert answers(folder)["norm"][1] == pytest.approx(whole / 2)
    budget = asked_of_arm(opening, strength=0.7, strengthUnit="nextTokenKl")
    with pytest.raises(TerminalFailure, match=r"not steered at 0.7 nextTokenKl.*are 0.5, 2"):
        world.run(question, budget, "budget", "budget")


def test_an_arm_that_the_steering_lacks_is_refused_with_those_it_has(world):
    with pytest.raises(TerminalFailure, match=r"there is no arm 'random-7'.*none, coarse"):
        opening = {"id": "q", "text": TEXT}
        world.run(question, asked_of_arm(opening, arm="random-7"), "unknown", "unknown")


def test_a_latent_beyond_the_dictionary_is_refused(world):
    with pytest.raises(TerminalFailure, match=r"spec.latents.coarse names latent 900.* 8 latents"):
        world.run(question, asked(world, {"coarse": [900], "fine": []}), "beyond", "beyond")


def test_a_text_of_too_many_tokens_is_refused_before_the_model_runs(world, monkeypatch):
    monkeypatch.setattr(question, "TOKENS_MAX", 3)
    with pytest.raises(TerminalFailure, match="above the 3 that can be asked about; shorten it"):
        world.run(question, asked(world), "long", "long")


def test_the_same_question_gives_the_same_bytes(world):
    for name in ("one", "two"):
        world.run(question, asked_of_arm({"id": "q", "text": TEXT}), name, name)
    one, two = (
        {path.name: path.read_bytes() for path in (world.folder / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two
