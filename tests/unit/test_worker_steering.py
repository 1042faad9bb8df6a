from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch

from loopscope.numerics.architectures.topk import TopK
from loopscope.numerics.statistics.sampling import SamplingRule, uniforms
from loopscope.specs.hooks import Hook
from loopscope.state.failures import JobStopped, TerminalFailure
from loopscope.worker.stages.capture import stage as capture
from loopscope.worker.stages.steering import generating, shift
from loopscope.worker.stages.steering import stage as steering
from loopscope.worker.stages.steering.cells import plan_rows
from loopscope.worker.stages.steering.run import prepare
from tests.drawn import adding, assert_drawn_alike, next_logits
from tests.stage_world import (
    OPENINGS,
    capture_payload,
    contents,
    interrupted_and_resumed,
    steering_payload,
    table,
)

SYSTEM_PROMPT = "people liked wine"
CONTROLS = {
    "arms": ["none", "coarse", "fine", "multi", "randomLatent", "meanDifference", "random"],
    "systemPrompt": SYSTEM_PROMPT,
    "systemPromptSeparator": "",
}
NO_ANCHOR = {"anchor": None, "anchors": [], "children": [], "children_of_all": []}


def test_steering_writes_one_row_for_each_text(steering_world):
    folder, metrics = steering_world.run(steering, steering_payload())
    samples, scores = (table(folder / f"steering_{n}.parquet") for n in ("samples", "scores"))
    arms = ["none"] + [
        a for n in ("coarse", "fine", "multi", "random-0", "random-1") for a in [n, n]
    ]
    assert len(samples["text"]) == 3 * len(arms) * 2
    keys = ["prompt_id", "arm", "strength", "sample"]
    assert [samples[k] for k in keys] == [scores[k] for k in keys]
    assert table(folder / "arms.parquet")["arm"] == arms
    assert all(
        s == 0 for a, s in zip(samples["arm"], samples["strength"], strict=True) if a == "none"
    )
    assert set(scores["concept"]) <= {0.0, 1.0}
    assert all(len(tokens) <= 5 for tokens in samples["tokens"])
    assert metrics["n"] == 3
    assert metrics["verdict"] == json.loads((folder / "verdict.json").read_text())["verdict"]


def test_scores_are_those_of_plain_hugging_face(steering_world):
    model = steering_world.model
    folder, _ = steering_world.run(steering, steering_payload())
    samples = table(folder / "steering_samples.parquet")
    scores = table(folder / "steering_scores.parquet")
    openings = {f"o{i}": model.encode(text) for i, text in enumerate(OPENINGS)}
    for i in range(0, len(samples["text"]), 7):
        opening, tokens = openings[samples["prompt_id"][i]], samples["tokens"][i]
        if not tokens:
            assert math.isnan(scores["perplexity"][i])
            continue
        with torch.no_grad():
            logits = model.hf_model(input_ids=torch.tensor([opening + tokens])).logits[0].double()
        logs = torch.log_softmax(logits, dim=-1)[len(opening) - 1 : -1]
        nll = -logs[range(len(tokens)), tokens].mean()
        assert scores["perplexity"][i] == pytest.approx(float(nll.exp()), rel=1e-4)
        words = set(model.decode(tokens).split())
        assert scores["concept"][i] == float(bool(words & {"france", "paris", "wine", "cheese"}))


@pytest.mark.parametrize("stream", ["resid_mid", "mlp_out", "ln2.normalized", "attn.z"])
def test_a_place_within_a_block_is_steered_in_its_own_norms(steering_world, stream):
    hook = str(Hook(1, stream))
    shutil.rmtree(steering_world.folder / "capture")
    steering_world.run(capture, capture_payload(hook=hook), "capture", f"capture-{stream}")
    folder, metrics = steering_world.run(steering, steering_payload(hook=hook))
    norms = json.loads((steering_world.folder / "capture" / "norms.json").read_text())
    arms = table(folder / "arms.parquet")
    unit = norms["median_norm"]
    for strength, norm in zip(arms["strength"], arms["norm"], strict=True):
        assert norm == pytest.approx(strength * unit, rel=1e-6)
    assert max(arms["kl"]) > 0
    assert any("begins at the hook" in name for name in metrics["preflights"])


def test_divergence_is_zero_unsteered_and_rises_with_strength(steering_world):
    folder, _ = steering_world.run(steering, steering_payload())
    arms = table(folder / "arms.parquet")
    assert arms["kl"][0] == 0.0
    for weak in range(1, 11, 2):
        assert 0 < arms["kl"][weak] < arms["kl"][weak + 1]


def test_an_arm_does_not_depend_on_which_other_arms_run(steering_world):
    every, _ = steering_world.run(steering, steering_payload(), "every", "every")
    few = steering_payload(arms=["fine", "none"], strengths=[2.0])
    some, _ = steering_world.run(steering, few, "some", "some")

    assert_texts_alike(steering_world, every, some, rows=3 * 2 * 2)


def assert_texts_alike(world, whole, part, rows, arms=None):
    """Assert that the texts in ``part`` are those of ``whole``, up to draws within rounding."""
    rule = SamplingRule(temperature=0.9, top_k=20)
    reference, found = texts_of(whole, arms), texts_of(part, arms)
    assert len(found) == rows
    keys = list(found)
    run = prepare(steering_payload(**CONTROLS), world.context("check"))
    norms = table(whole / "arms.parquet")
    length = dict(
        zip(zip(norms["arm"], norms["strength"], strict=True), norms["norm"], strict=True)
    )

    def logits(row, tokens):
        opening, arm, strength, _ = keys[row]
        before = world.model.encode(OPENINGS[int(opening[1:])])
        if arm == "systemPrompt":
            before = world.model.encode(SYSTEM_PROMPT) + before[1:]
        none = torch.zeros(world.model.d_model)
        vector = run.arms.vectors.get(arm, none) * length[arm, strength]
        return next_logits(world.model, [*before, *tokens], run.place, adding(vector))

    draws = [uniforms(0, opening, sample, 5) for opening, _, _, sample in keys]
    assert_drawn_alike(list(found.values()), [reference[key] for key in keys], logits, draws, rule)


def texts_of(folder, arms=None):
    t = table(folder / "steering_samples.parquet")
    keys = zip(t["prompt_id"], t["arm"], t["strength"], t["sample"], strict=True)
    texts = dict(zip(keys, t["tokens"], strict=True))
    return {key: tokens for key, tokens in texts.items() if arms is None or key[1] in arms}


@pytest.mark.parametrize("stop_at", [3, 9, 16, 22, 26])
def test_a_resumed_steering_has_the_bytes_of_an_undisturbed_one(
    steering_world, monkeypatch, stop_at
):
    monkeypatch.setattr(generating, "ROWS_PER_BATCH_MAX", 22)
    payload = steering_payload()
    whole = contents(steering_world.run(steering, payload)[0])
    assert interrupted_and_resumed(steering_world, steering, payload, stop_at) == whole


def test_a_run_that_stops_after_each_shard_has_the_bytes_of_an_undisturbed_one(
    steering_world, monkeypatch
):
    monkeypatch.setattr(generating, "ROWS_PER_BATCH_MAX", 22)
    monkeypatch.setattr(shift, "ROWS_PER_SHARD", 1)
    payload = steering_payload(strengthUnit="nextTokenKl", strengths=[0.05])
    whole = contents(steering_world.run(steering, payload)[0])

    def stop():
        raise JobStopped("shutdown")

    surroundings = steering_world.context("stopped")
    stopping = replace(surroundings, shards=replace(surroundings.shards, on_sealed=stop))
    stops = 0
    for attempt in range(100):
        out = steering_world.folder / f"attempt-{attempt}"
        out.mkdir()
        try:
            steering.run(payload, stopping, out)
        except JobStopped:
            stops += 1
        else:
            break
    assert contents(out) == whole
    assert stops > 10


def test_greedy_steering_ignores_the_seed(steering_world):
    rules = {"temperature": 0.9, "topK": 20, "topP": 1.0, "greedy": True}
    texts = []
    for seed in (0, 1):
        payload = steering_payload(sampling=rules | {"seed": seed}, arms=["none", "coarse"])
        folder, _ = steering_world.run(steering, payload, f"seed-{seed}", f"seed-{seed}")
        texts.append(table(folder / "steering_samples.parquet")["tokens"])
    assert texts[0] == texts[1]


def test_a_missing_arm_is_left_out_and_named_in_the_verdict(steering_world):
    mapping = steering_world.folder / "mapping"
    (mapping / "directions.safetensors").unlink()
    missing = {"coarse": "no anchor", "fine": "no anchor", "multi": "no anchor"}
    (mapping / "directions.json").write_text(json.dumps({**NO_ANCHOR, "missing": missing}))
    folder, metrics = steering_world.run(steering, steering_payload())
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["verdict"] == metrics["verdict"] == "NotTestable"
    assert "no anchor" in verdict["reason"]
    assert metrics["reason"] == verdict["reason"]
    assert verdict["estimate"] is None
    assert set(table(folder / "arms.parquet")["arm"]) == {"none", "random-0", "random-1"}


def test_nothing_to_steer_is_refused(steering_world):
    (steering_world.folder / "mapping" / "directions.safetensors").unlink()
    with pytest.raises(TerminalFailure) as failure:
        steering_world.run(steering, steering_payload(arms=["fine"]))
    assert failure.value.reason == "NothingToSteer"


def test_the_verdict_names_the_anchor_as_it_stands_in_the_directions(steering_world):
    folder, _ = steering_world.run(steering, steering_payload())
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["anchor"] == {"latent": 0, "children": 1}


def test_parallel_arms_are_not_testable(steering_world):
    payload = steering_payload(maxArmCosine=0.7)
    folder, _ = steering_world.run(steering, payload)
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["verdict"] == "NotTestable"
    assert verdict["arm_cosines"]["coarse~multi"] == pytest.approx(math.sqrt(0.5), abs=1e-6)


def test_the_strength_unit_scales_the_vector(steering_world):
    norms = json.loads((steering_world.folder / "capture" / "norms.json").read_text())
    found = []
    for unit, strength in (
        ("centredResidualNorm", 0.5),
        ("absolute", 0.5 * norms["median_centred_norm"]),
    ):
        payload = steering_payload(strengthUnit=unit, strengths=[strength], arms=["coarse"])
        folder, _ = steering_world.run(steering, payload, unit, unit)
        found.append(table(folder / "arms.parquet")["kl"][0])
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_clamping_steers_arms_of_latents_otherwise_and_the_rest_as_before(steering_world):
    payload = steering_payload(**CONTROLS, strengths=[0.5])
    added, plain = steering_world.run(steering, payload, "added", "added")
    clamped, metrics = steering_world.run(
        steering, payload | {"method": "clamp"}, "clamped", "clamped"
    )
    assert (metrics["method"], "method" in plain) == ("clamp", False)
    before, after = (table(folder / "arms.parquet") for folder in (added, clamped))
    assert before["norm"] == after["norm"]
    of_latents = {"coarse", "fine", "multi", "randomLatent"}
    for arm, old, new in zip(before["arm"], before["kl"], after["kl"], strict=True):
        if arm in of_latents:
            assert abs(new - old) > 1e-3 * old, arm
        else:
            assert new == pytest.approx(old, rel=1e-6), arm
    assert after["kl"][after["arm"].index("none")] == 0.0
    others = ("none", "systemPrompt", "meanDifference", "random-0", "random-1")
    assert_texts_alike(steering_world, added, clamped, rows=5 * 3 * 2, arms=others)


def test_a_resumed_clamped_steering_has_the_bytes_of_an_undisturbed_one(steering_world):
    payload = steering_payload(
        method="clamp", strengthUnit="nextTokenKl", strengths=[0.5], samplesPerPrompt=1
    )
    whole = contents(steering_world.run(steering, payload)[0])
    for stop_at in (3, 9):
        assert interrupted_and_resumed(steering_world, steering, payload, stop_at) == whole


def test_clamped_arms_ride_with_dictionaries_whose_latents_compete(steering_world):
    for name, dictionary in steering_world.dictionaries.items():
        steering_world.dictionaries[name] = TopK(
            dictionary.w_enc, dictionary.b_enc, dictionary.w_dec, dictionary.b_dec, k=4
        )
    folder, metrics = steering_world.run(steering, steering_payload(method="clamp"))
    assert metrics["n"] == 3
    assert all(kl > 0 for kl in table(folder / "arms.parquet")["kl"][1:])


def test_an_opening_too_long_for_the_model_is_refused(steering_world):
    with pytest.raises(TerminalFailure) as failure:
        steering_world.run(steering, steering_payload(maxNewTokens=500))
    assert failure.value.reason == "PromptTooLong"


def test_all_arms_of_a_prompt_ride_in_one_batch():
    batches = plan_rows([5, 3, 4, 3], samples=2, n_cells=4, rows_max=10)
    assert sorted(len(b) for b in batches) == [8, 8, 8, 8]
    for batch in batches:
        groups = {(row.opening, row.sample) for row in batch}
        assert len(batch) == 4 * len(groups)
    order = [batch[0].opening for batch in batches]
    assert order == [1, 3, 2, 0]


def test_batches_are_balanced_and_a_large_group_is_split():
    assert [len(b) for b in plan_rows([1] * 5, 1, 10, rows_max=40)] == [30, 20]
    assert [len(b) for b in plan_rows([1], 1, 10, rows_max=4)] == [4, 4, 2]
    assert plan_rows([], 1, 4, rows_max=8) == []
