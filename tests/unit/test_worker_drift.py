"""Drift by the stage: every point against plain Hugging Face code, samples, resume, refusals."""

import copy
import math

import numpy as np
import pytest
import torch

from loopscope.specs.lexicon import folded
from loopscope.specs.payloads.drift import ANCHORS
from loopscope.state.failures import JobStopped, TerminalFailure
from loopscope.worker.concept_tokens import concept_tokens
from loopscope.worker.stages.drift import stage as drift
from loopscope.worker.stages.drift.texts import drift_texts
from loopscope.worker.stages.steering import stage as steering
from loopscope.worker.stages.steering.run import prepare
from tests.stage_world import (
    HOOK,
    NEUTRAL,
    TARGET,
    World,
    add_steering_inputs,
    contents,
    steering_payload,
    table,
)

DISTANCES = [0, 1, 6, 11]
WORDS = {
    "systemPrompt": "people in lyon liked cheese", "systemPromptSeparator": " wine",
    "placeboPrompt": "the quiet city sold old bread",
}  # fmt: skip
STRENGTH = 2.0


def payload_of(world, **rules):
    work = {**world.work, **WORDS, "neutralText": [], "siblings": []}
    given = {
        "distances": DISTANCES, "fillers": 2, "temperatures": [0.5, 1.0, 2.0], "newTokens": 4,
        "seed": 0, "arm": "coarse",
    }  # fmt: skip
    return {
        "rules": {**given, **rules}, "fillerText": [*NEUTRAL, "a garden in summer"],
        "otherWords": "the old house", "anchors": list(ANCHORS),
        "work": work, "steered": {"digest": "s"},
    }  # fmt: skip


@pytest.fixture(scope="module", params=["rope_model", "learned_position_model"])
def drifted(request, tmp_path_factory):
    model = request.getfixturevalue(request.param)
    world = add_steering_inputs(World(model, tmp_path_factory.mktemp("drift")))
    world.work = steering_payload(maxNewTokens=2, arms=["none", "coarse"])
    world.run(steering, world.work, "steering", "steering")
    world.payload = payload_of(world)
    world.exact = copy.deepcopy(model.hf_model).double()
    world.out, world.found = world.run(drift, world.payload, "drift", "drift")
    world.texts = drift_texts(prepare(world.payload["work"], world.context("p")), world.payload)
    return world


def rows_of(folder, name):
    columns = table(folder / name)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def hugging_face(exact, tokens, steered, vector):
    """The next token's log-probabilities in float64 by one whole pass, with a hook of our own."""
    block = exact.get_submodule(_block_name(exact))

    def add(_module, _inputs, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[0, steered] += vector.double()
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = block.register_forward_hook(add)
    with torch.no_grad():
        logits = exact(torch.tensor([tokens])).logits[0]
    handle.remove()
    return torch.log_softmax(logits, dim=1)


def _block_name(model):
    number = HOOK.split(".")[1]
    names = dict(model.named_modules())
    return next(n for n in (f"model.layers.{number}", f"transformer.h.{number}") if n in names)


def vector_of(world):
    norm = next(
        row["norm"]
        for row in rows_of(world.folder / "steering", "arms.parquet")
        if row["arm"] == "coarse" and row["strength"] == STRENGTH
    )
    vector = torch.zeros(world.model.d_model)
    vector[0] = norm
    return vector


def text_of(world, opening, distance, words, again=()):
    texts = world.texts
    number = texts.filler_of[opening]
    filler = [*texts.filler(number, distance), *texts.ending(distance)]
    assert len(filler) == distance
    return [texts.bos, *words, *filler, *again, *texts.openings[opening]]


def test_every_point_is_that_of_one_whole_pass_of_hugging_face(drifted):
    texts, vector = drifted.texts, vector_of(drifted)
    concept = concept_tokens(drifted.model, drifted.payload["work"]["lexicon"])
    front = {"systemPrompt": texts.system_prompt, "otherWords": texts.other_words}
    rows = rows_of(drifted.out, "drift_points.parquet")
    assert len(rows) == 3 * (4 * len(DISTANCES) + 2)
    for row in rows:
        opening = int(row["prompt_id"][1:])
        words = front.get(row["anchor"], texts.placebo)
        where = (opening, row["distance"])
        if row["again"]:
            tokens = text_of(drifted, *where, texts.placebo, words)
            plain = text_of(drifted, *where, texts.placebo, texts.placebo)
            first = 1 + len(texts.placebo) + row["distance"]
            steered = range(first, first + len(texts.placebo))
        else:
            tokens = text_of(drifted, *where, words)
            plain = text_of(drifted, *where, texts.placebo)
            whole = row["anchor"] == "steering"
            steered = range(1, len(tokens) if whole else 1 + len(texts.placebo))
        acts = list(steered) if row["anchor"].startswith("steer") else []
        after = hugging_face(drifted.exact, tokens, acts, vector)[-1]
        before = hugging_face(drifted.exact, plain, [], vector)[-1]
        assert row["kl"] == pytest.approx(
            float((before.exp() * (before - after)).sum()), rel=1e-3, abs=1e-7
        )
        assert row["concept"] == pytest.approx(float(after[concept].exp().sum()), rel=1e-4)
        assert row["concept_unanchored"] == pytest.approx(
            float(before[concept].exp().sum()), rel=1e-4
        )


def test_the_three_anchors_are_equally_long_and_end_alike(drifted):
    texts = drifted.texts
    lengths = {len(one) for one in (texts.system_prompt, texts.placebo, texts.other_words)}
    assert lengths == {len(texts.system_prompt)}
    assert texts.separator and all(
        one[-len(texts.separator) :] == texts.separator
        for one in (texts.system_prompt, texts.placebo, texts.other_words)
    )


def test_a_concept_token_reads_as_a_word_of_the_lexicon(drifted):
    lexicon = drifted.payload["work"]["lexicon"]
    found = concept_tokens(drifted.model, [word.upper() for word in lexicon])
    written = sorted(drifted.model.written(token).strip() for token in found)
    words = {folded(word) for word in lexicon}
    assert written and set(written) <= words
    with pytest.raises(TerminalFailure, match="none of the 1 words"):
        concept_tokens(drifted.model, ["unwritten"])


def test_samples_wander_from_the_anchored_distribution_as_hugging_face_computes_it(drifted):
    texts, vector = drifted.texts, vector_of(drifted)
    concept = concept_tokens(drifted.model, drifted.payload["work"]["lexicon"])
    rows = rows_of(drifted.out, "wander_samples.parquet")
    assert {row["anchor"] for row in rows} == {
        "none", "systemPrompt", "otherWords", "steeredPrefix", "steering",
    }  # fmt: skip
    assert len(rows) == 5 * 3 * 3
    checked = 0
    for row in rows:
        words = {"systemPrompt": texts.system_prompt, "otherWords": texts.other_words}.get(
            row["anchor"], texts.placebo
        )
        opening = [texts.bos, *words, *texts.openings[int(row["prompt_id"][1:])]]
        drawn = drawn_tokens(drifted, row, opening, vector, len(words))
        if drawn is None:
            continue  # it ended early: its last draw is not in the text
        logs, tokens = drawn
        hot = torch.log_softmax(logs / row["temperature"], dim=1)
        wander = (hot.exp() * (hot - logs)).sum(dim=1).mean()
        assert row["wander"] == pytest.approx(float(wander), rel=1e-3, abs=1e-6)
        surprisal = -logs[torch.arange(len(tokens)), tokens].mean()
        assert row["surprisal"] == pytest.approx(float(surprisal), rel=1e-4)
        mass = logs[:, concept].exp().sum(dim=1).mean()
        assert row["concept_mass"] == pytest.approx(float(mass), rel=1e-4)
        checked += 1
    assert checked > len(rows) / 2
    assert all(row["wander"] < 1e-6 for row in rows if row["temperature"] == 1.0)
    assert all(row["wander"] > 1e-4 for row in rows if row["temperature"] != 1.0)


def drawn_tokens(world, row, opening, vector, words):
    """Log-probabilities at the steps of a sample, and its tokens, encoded again from its text."""
    tokens = world.model.tokenizer(row["text"].strip(), add_special_tokens=False)["input_ids"]
    if len(tokens) != world.payload["rules"]["newTokens"]:
        return None
    whole = [*opening, *tokens]
    acts = {"steeredPrefix": range(1, 1 + words), "steering": range(1, len(whole))}
    logs = hugging_face(world.exact, whole, list(acts.get(row["anchor"], ())), vector)
    return logs[len(opening) - 1 : -1], torch.tensor(tokens)


def test_the_curve_holds_the_means_of_the_points(drifted):
    points = rows_of(drifted.out, "drift_points.parquet")
    for row in rows_of(drifted.out, "drift_curve.parquet"):
        own = [
            one for one in points
            if all(one[name] == row[name] for name in ("anchor", "distance", "again"))
        ]  # fmt: skip
        assert row["n"] == len(own) == 3
        assert row["kl"] == pytest.approx(np.mean([one["kl"] for one in own]))
        gains = [one["concept"] - one["concept_unanchored"] for one in own]
        assert row["concept"] == pytest.approx(np.mean(gains))
        assert row["kl_low"] <= row["kl"] <= row["kl_high"]


def test_the_grid_holds_the_means_of_the_samples_beside_the_unanchored_ones(drifted):
    samples = rows_of(drifted.out, "wander_samples.parquet")
    grid = rows_of(drifted.out, "wander_grid.parquet")
    assert len(grid) == 15
    mass = {(s["anchor"], s["temperature"], s["prompt_id"]): s["concept_mass"] for s in samples}
    for row in grid:
        own = [
            s for s in samples
            if (s["anchor"], s["temperature"]) == (row["anchor"], row["temperature"])
        ]  # fmt: skip
        assert row["wander"] == pytest.approx(np.mean([s["wander"] for s in own]))
        gains = [s["concept_mass"] - mass["none", s["temperature"], s["prompt_id"]] for s in own]
        assert row["gain"] == pytest.approx(np.mean(gains), abs=1e-12)


def test_a_stopped_drift_goes_on_to_the_same_bytes_after_each_shard(drifted):
    small = payload_of(drifted, distances=[0, 3], temperatures=[1.0], newTokens=1)
    drifted.calls = []
    whole, _ = drifted.run(drift, small, "whole", "whole")
    assert len(drifted.calls) >= 6 + 5, "each filler behind each beginning, and each anchor"
    reports = len(drifted.calls)
    for stop_at in range(1, reports + 1):
        name = f"stopped-{stop_at}"
        drifted.calls, drifted.stop_at = [], stop_at
        with pytest.raises(JobStopped):
            drifted.run(drift, small, name, name)
        drifted.stop_at = None
        again, _ = drifted.run(drift, small, f"{name}-on", name)
        assert contents(again) == contents(whole)


def test_other_distances_leave_the_points_of_the_shared_ones_as_they_were(drifted):
    """What is measured after 6 tokens does not depend on what else is read."""
    fewer = {**drifted.payload, "rules": {**drifted.payload["rules"], "distances": [0, 6]}}
    folder, _ = drifted.run(drift, fewer, "fewer", "fewer")
    before = {key(row): row["kl"] for row in rows_of(drifted.out, "drift_points.parquet")}
    for row in rows_of(folder, "drift_points.parquet"):
        if not row["again"]:
            assert row["kl"] == pytest.approx(before[key(row)], rel=1e-4, abs=1e-9)


def key(row):
    return row["prompt_id"], row["anchor"], row["distance"], row["again"]


def test_without_a_system_prompt_only_steering_anchors(drifted):
    payload = {**payload_of(drifted, newTokens=1), "anchors": list(ANCHORS[1:])}
    folder, found = drifted.run(drift, payload, "unprompted", "unprompted")
    assert list(found["anchors"]) == list(ANCHORS[1:])
    for name in ("drift_points.parquet", "drift_curve.parquet", "wander_grid.parquet"):
        assert "systemPrompt" not in {row["anchor"] for row in rows_of(folder, name)}


def test_an_arm_that_the_steering_lacks_is_named_with_those_it_has(drifted):
    with pytest.raises(TerminalFailure, match=r"no arm fine at strength .*coarse at 0.5"):
        drifted.run(drift, payload_of(drifted, arm="fine"), "no-arm", "no-arm")


def test_a_distance_beyond_the_models_context_is_refused(drifted):
    with pytest.raises(TerminalFailure, match="leave out the largest distances"):
        drifted.run(drift, payload_of(drifted, distances=[0, 100_000]), "far", "far")


def test_the_status_says_what_became_of_each_anchor(drifted):
    found = drifted.found["anchors"]
    assert set(found) == {"systemPrompt", "otherWords", "steeredPrefix", "steering"}
    for number in found.values():
        assert number["fade"] in ("fades", "grows", "no fade shown", "no effect")
        assert math.isfinite(number["near"]) and number["near"] >= 0
    assert len(TARGET) and drifted.found["fillers"] == 2
