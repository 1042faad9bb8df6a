"""Traces by the stage: which tokens were steered, and where the stream went, without generating."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from loopscope.worker.stages.steering import stage as steering
from loopscope.worker.stages.steering.run import prepare
from loopscope.worker.stages.trace import stage as trace
from loopscope.worker.stages.trace.cutting import token_ends
from tests.stage_world import (
    HOOK,
    OPENINGS,
    World,
    add_steering_inputs,
    contents,
    steering_payload,
    table,
)

NEW_TOKENS = 5
WRITTEN = "blocks.1.hook_mlp_out"


def steered_world(model, folder, **changes):
    """Return a world in which texts were generated, and what was asked for."""
    world = add_steering_inputs(World(model, folder))
    world.work = steering_payload(maxNewTokens=NEW_TOKENS, **changes)
    world.run(steering, world.work, "steering", "steering")
    return world


def traced(world, out="trace", openings=3):
    narrowed = {**world.work, "neutralText": [], "lexicon": [], "siblings": []}
    payload = {"openings": openings, "work": narrowed, "steered": {"digest": "s"}}
    return world.run(trace, payload, out, out)


@pytest.fixture(scope="module")
def world(rope_model, tmp_path_factory):
    made = steered_world(rope_model, tmp_path_factory.mktemp("trace"))
    made.trace, made.found = traced(made)
    return made


def rows_of(folder, name, *names):
    columns = table(folder / name)
    return list(zip(*(columns[one] for one in names), strict=True))


def generated(world):
    names = ("prompt_id", "arm", "strength", "sample", "tokens", "text")
    rows = rows_of(world.folder / "steering", "steering_samples.parquet", *names)
    return {row[:4]: row[4:] for row in rows}


def test_every_text_is_cut_into_its_tokens(world):
    texts, cut = generated(world), rows_of(world.trace, "sample_tokens.parquet", *KEY, "ends")
    assert [row[:4] for row in cut] == list(texts)
    for *key, ends in cut:
        tokens, text = texts[tuple(key)]
        pieces = [text[a:b] for a, b in pairwise([0, *ends])]
        words = [world.model.decode([token]).strip() for token in tokens]
        assert [piece.strip() for piece in pieces] == words
    assert world.found["texts"] == len(texts)
    assert world.found["tokens"] == sum(len(tokens) for tokens, _ in texts.values())


KEY = ("prompt_id", "arm", "strength", "sample")


def test_a_character_of_several_tokens_belongs_to_the_last_of_them():
    class Bytes:
        def continuation(self, opening, generated):
            return bytes(generated).decode("utf-8", errors="replace")

    text = "aé€b"
    ends = token_ends(Bytes(), [], list(text.encode()), text)
    assert ends == [1, 1, 2, 2, 2, 3, 4]
    assert token_ends(Bytes(), [], [], "") == []


def test_all_are_steered_but_the_last_token_after_which_none_is_drawn(world):
    texts = generated(world)
    for *key, steered in rows_of(world.trace, "sample_tokens.parquet", *KEY, "steered"):
        tokens, _ = texts[tuple(key)]
        read = min(len(tokens), NEW_TOKENS - 1)
        assert steered == (read if key[1] != "none" else 0)


def test_the_steered_tokens_of_openings_are_as_many_as_the_hook_counted(world):
    found = rows_of(world.trace, "opening_tokens.parquet", "prompt_id", "text", "steered")
    for number, text in enumerate(OPENINGS):
        own = [row for row in found if row[0] == f"o{number}"]
        assert "".join(row[1] for row in own) == text
    steered, samples = sum(row[2] for row in found), world.work["samplesPerPrompt"]
    names = ("arm", "steered_opening_tokens")
    for arm, counted in rows_of(world.folder / "steering", "arms.parquet", *names):
        assert counted == (steered * samples if arm != "none" else 0)


@pytest.mark.parametrize(
    ("positions", "opening", "after"),
    [("opening", True, 0), ("last", False, 0), ("generated", False, NEW_TOKENS - 1)],
)
def test_what_is_steered_is_what_the_spec_says(rope_model, tmp_path, positions, opening, after):
    made = steered_world(rope_model, tmp_path, positions=positions, arms=["none", "coarse"])
    folder, _ = traced(made)
    texts = generated(made)
    for *key, steered in rows_of(folder, "sample_tokens.parquet", *KEY, "steered"):
        most = after if key[1] == "coarse" else 0
        assert steered == min(most, len(texts[tuple(key)][0]))
    of_openings = rows_of(folder, "opening_tokens.parquet", "prompt_id", "steered")
    own = [steered for name, steered in of_openings if name == "o0"]
    assert own == [opening] * (len(own) - 1) + [True], "the last decides the first new token"
    for arm, step, steered in rows_of(folder, "trace_steps.parquet", "arm", "step", "steered"):
        assert steered == (arm == "coarse" and (step == 0 or after > 0))


def test_the_stream_is_that_of_hugging_face_while_it_is_steered(world):
    """One whole pass with the vector added by a hook of ours: before it, and behind it."""
    stream = load_file(world.trace / "trace.safetensors")
    steps = rows_of(world.trace, "trace_steps.parquet", *KEY, "step", "steered")
    run = prepare(world.work, world.context("again"))
    norms = {row[:2]: row[2] for row in rows_of(
        world.folder / "steering", "arms.parquet", "arm", "strength", "norm"
    )}  # fmt: skip
    texts, seen = generated(world), 0
    for key in dict.fromkeys(row[:4] for row in steps):
        own = [number for number, row in enumerate(steps) if row[:4] == key]
        assert [steps[n][4] for n in own] == list(range(len(own)))
        tokens = texts[key][0]
        assert len(own) == 1 + min(len(tokens), NEW_TOKENS - 1)
        vector = run.arms.vectors.get(key[1], torch.zeros(run.model.d_model)) * norms[key[1:3]]
        opening = run.openings[int(key[0][1:])]
        before, behind = _read_with(world.model, [*opening, *tokens], vector)
        places = slice(len(opening) - 1, len(opening) - 1 + len(own))
        np.testing.assert_allclose(stream["residual"][own], before[places], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(stream["steered"][own], behind[places], rtol=1e-4, atol=1e-5)
        assert all(steps[n][5] == bool(norms[key[1:3]]) for n in own)
        seen += len(own)
    assert seen == len(steps) == len(stream["residual"]) == world.found["steps"]


def _read_with(model, tokens, vector):
    kept = []

    def add(_module, _inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        moved = hidden.clone()
        moved[:, 1:] += vector
        kept.extend([hidden[0], moved[0]])
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    block = model.hf_model.model.layers[int(HOOK.split(".")[1])]
    handle = block.register_forward_hook(add)
    with torch.no_grad():
        model.hf_model(torch.tensor([tokens]))
    handle.remove()
    return kept


def test_each_arm_is_followed_at_its_weakest_strength_from_the_first_openings(world):
    folder, found = traced(world, "two", openings=2)
    texts = set(rows_of(folder, "trace_steps.parquet", *KEY))
    arms = ("none", "coarse", "fine", "multi", "random-0", "random-1")
    assert texts == {
        (f"o{n}", arm, 0.0 if arm == "none" else 0.5, 0) for n in (0, 1) for arm in arms
    }
    assert found["followed"] == len(texts)
    assert (
        contents(folder)["sample_tokens.parquet"] == contents(world.trace)["sample_tokens.parquet"]
    )


def test_the_children_are_unit_decoder_rows(world):
    children = load_file(world.trace / "trace.safetensors")["children"]
    row = world.dictionaries["fine"].w_dec[1]
    torch.testing.assert_close(children, (row / row.norm())[None])


def test_what_is_read_does_not_depend_on_what_shares_its_pass(world, monkeypatch):
    monkeypatch.setattr(trace, "TEXTS_PER_PASS", 1)
    alone, _ = traced(world, "alone")
    one, other = (load_file(f / "trace.safetensors") for f in (alone, world.trace))
    for name in one:
        torch.testing.assert_close(one[name], other[name])
    names = ("trace_steps.parquet", "opening_tokens.parquet")
    assert all(contents(alone)[name] == contents(world.trace)[name] for name in names)


def test_a_prompt_before_the_opening_is_read_and_not_steered(rope_model, tmp_path):
    made = steered_world(
        rope_model, tmp_path, arms=["none"],
        systemPrompt="people liked wine", systemPromptSeparator="", placeboPrompt="people sold",
    )  # fmt: skip
    folder, _ = traced(made, openings=1)
    steps = rows_of(folder, "trace_steps.parquet", "arm", "step", "steered")
    assert {arm for arm, _, _ in steps} == {"none", "systemPrompt", "placeboPrompt"}
    assert not any(steered for _, _, steered in steps)
    stream = load_file(folder / "trace.safetensors")
    assert torch.equal(stream["residual"], stream["steered"])
    first = [n for n, row in enumerate(steps) if row[1] == 0]
    assert len({stream["residual"][n].numpy().tobytes() for n in first}) == 3


def test_where_the_arm_acts_later_the_stream_is_as_the_unsteered_model_reads_it(
    rope_model, tmp_path
):
    made = steered_world(
        rope_model, tmp_path, hook=WRITTEN, readHook=HOOK.replace("1", "0"),
        arms=["none", "random"], probeHook=HOOK,
    )  # fmt: skip
    folder, _ = traced(made, openings=1)
    stream = load_file(folder / "trace.safetensors")
    assert torch.equal(stream["residual"], stream["steered"])
    steps = rows_of(folder, "trace_steps.parquet", "arm", "steered")
    assert all(steered == (arm != "none") for arm, steered in steps)
