"""Equal budgets and the control arms, on tiny models."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from loopscope.numerics.model.hooks import HookPlace
from loopscope.numerics.statistics.sampling import SamplingRule
from loopscope.numerics.steering.fixed_text import hashed_order, hashed_positions
from loopscope.numerics.steering.intervention import Intervention
from loopscope.worker.stages.steering import stage as steering
from loopscope.worker.stages.steering.arms import matched_latents
from loopscope.worker.stages.steering.cells import Cell
from loopscope.worker.stages.steering.run import prepare
from tests.drawn import assert_drawn_alike, next_logits
from tests.every_position import loss_rise, next_token_kl
from tests.stage_world import (
    CONCEPT_LATENT,
    contents,
    interrupted_and_resumed,
    steering_payload,
    table,
)

NEUTRAL_TEXT = [
    "the quiet city sold old bread", "a garden in summer", "people liked the river",
    "the old house is near a hill",
]  # fmt: skip
CONTROLS = ["coarsePair", "nonChildren", "randomLatent", "meanDifference"]


def budget_payload(**changes):
    return steering_payload(
        strengthUnit="nextTokenKl", strengths=[0.002, 0.01], samplesPerPrompt=1,
        neutralText=NEUTRAL_TEXT,
    ) | changes  # fmt: skip


def mean_over_texts(run, effect, cells, texts=NEUTRAL_TEXT, last=0):
    """The mean effect of each cell: over a text's chosen positions, then over the texts.

    ``last`` tokens of a text are not measured.
    """
    means = []
    for text in texts:
        tokens = run.model.encode(text)
        positions = hashed_positions(text, 1, len(tokens) - 1 - last)
        nats = effect(run.model.causal, run.place, tokens, cells)
        means.append(nats[:, [position - 1 for position in positions]].mean(dim=1))
    return torch.stack(means).mean(dim=0).tolist()


def test_every_arm_reaches_the_wanted_divergence_on_all_texts(steering_world):
    payload = budget_payload()
    folder, _ = steering_world.run(steering, payload)
    arms = table(folder / "arms.parquet")
    run = prepare(payload, steering_world.context("check"))
    for arm, strength, norm, kl in zip(
        arms["arm"], arms["strength"], arms["norm"], arms["kl"], strict=True
    ):
        if arm == "none":
            continue
        vector = Intervention((run.arms.vectors[arm] * norm)[None])
        (again,) = mean_over_texts(run, next_token_kl, vector)
        assert again == pytest.approx(strength, rel=0.0201)
        assert again == pytest.approx(kl, rel=1e-3)


def test_strengths_of_an_arm_begin_at_one_norm_that_is_measured_once(steering_world):
    together, _ = steering_world.run(steering, budget_payload(), "both", "both")
    first = json.loads((steering_world.folder / "shards/both/budget-01-000.json").read_text())
    assert [len(cells) for cells in first] == [5] * len(NEUTRAL_TEXT), (
        "one of each arm, whatever its strengths"
    )
    both = table(together / "arms.parquet")
    known = dict(zip(zip(both["arm"], both["strength"], strict=True), both["norm"], strict=True))
    for strength in (0.002, 0.01):
        payload = budget_payload(strengths=[strength])
        alone, _ = steering_world.run(steering, payload, f"s{strength}", f"s{strength}")
        arms = table(alone / "arms.parquet")
        for arm, at, norm in zip(arms["arm"], arms["strength"], arms["norm"], strict=True):
            assert known[arm, at] == pytest.approx(norm, rel=1e-4)


def test_arms_can_be_made_equal_in_fluency_loss(steering_world):
    payload = budget_payload(strengthUnit="fluencyLoss", strengths=[0.01])
    folder, _ = steering_world.run(steering, payload)
    arms = table(folder / "arms.parquet")
    norms = dict(zip(arms["arm"], arms["norm"], strict=True))
    run = prepare(payload, steering_world.context("check"))
    missing = json.loads((folder / "verdict.json").read_text())["missing"]
    reached = norms.keys() & run.arms.vectors.keys()
    assert {f"{arm} at 0.01" for arm in run.arms.vectors.keys() - reached} <= missing.keys()
    for arm in reached:
        vector = Intervention((run.arms.vectors[arm] * norms[arm])[None])
        # a random model may find its text easier when it is pushed: then no norm costs anything
        assert mean_over_texts(run, loss_rise, vector, last=1) == [pytest.approx(0.01, rel=0.0201)]


MANY_TEXTS = [
    f"the {size} {thing} near the {place} was {how} and people liked it"
    for size in ("old", "small")
    for thing in ("house", "market", "garden")
    for place, how in (("sea", "quiet"), ("hill", "famous"))
]


def test_many_texts_are_bracketed_on_four_and_solved_on_all(steering_world):
    payload = budget_payload(neutralText=MANY_TEXTS, strengths=[0.01], arms=["none", "multi"])
    folder, _ = steering_world.run(steering, payload)
    arms = table(folder / "arms.parquet")
    run = prepare(payload, steering_world.context("check"))
    cells = Intervention((run.arms.vectors["multi"] * arms["norm"][1])[None])
    assert mean_over_texts(run, next_token_kl, cells, MANY_TEXTS) == [
        pytest.approx(0.01, rel=0.0201)
    ]
    per_text = table(folder / "neutral_text.parquet")
    of_multi = [i for i, arm in enumerate(per_text["arm"]) if arm == "multi"]
    assert [per_text["text"][i] for i in of_multi] == MANY_TEXTS
    assert np.mean([per_text["kl"][i] for i in of_multi]) == pytest.approx(arms["kl"][1])
    assert [per_text["kl"][i] for i in of_multi] == [per_text["budget"][i] for i in of_multi]


def test_the_texts_are_taken_in_the_order_of_their_hashes_wherever_they_stand(steering_world):
    found = []
    for name, texts in (("there", MANY_TEXTS), ("back", MANY_TEXTS[::-1])):
        payload = budget_payload(neutralText=texts, strengths=[0.01], arms=["none", "multi"])
        folder, _ = steering_world.run(steering, payload, name, name)
        found.append(table(folder / "arms.parquet")["norm"])
    assert found[0] == found[1]
    order = hashed_order(MANY_TEXTS)
    back = hashed_order(MANY_TEXTS[::-1])
    assert [MANY_TEXTS[i] for i in order] == [MANY_TEXTS[::-1][i] for i in back]


def test_positions_are_chosen_by_the_text_and_are_at_most_eight():
    text = MANY_TEXTS[0]
    assert hashed_positions(text, 1, 5) == (1, 2, 3, 4, 5)
    chosen = hashed_positions(text, 1, 40)
    assert len(chosen) == 8
    assert list(chosen) == sorted(chosen)
    assert set(chosen) <= set(range(1, 41))
    assert chosen == hashed_positions(text, 1, 40)
    assert chosen != hashed_positions(MANY_TEXTS[1], 1, 40)


def budget_of(folder):
    verdict = json.loads((folder / "verdict.json").read_text())
    errors = {error["contrast"]: error for error in verdict["budget"]["errors"]}
    contrasts = {contrast["contrast"]: contrast for contrast in verdict["contrasts"]}
    return verdict["budget"], errors, contrasts


def test_the_error_of_the_budgets_enters_the_contrasts_and_fewer_texts_make_it_larger(
    steering_world,
):
    spread = {}
    for name, texts in (("one", NEUTRAL_TEXT[:1]), ("many", MANY_TEXTS)):
        folder, _ = steering_world.run(steering, budget_payload(neutralText=texts), name, name)
        budget, errors, contrasts = budget_of(folder)
        assert budget["texts"] == len(texts)
        for contrast in ("multi-coarse", "multi-fine"):
            spread[name, contrast] = errors[contrast]["log_ratio_sd"]
            assert contrasts[contrast]["shared_sd"] == errors[contrast]["shared_sd"]
    for contrast in ("multi-coarse", "multi-fine"):
        assert spread["one", contrast] == pytest.approx(0.18)
        assert 0 < spread["many", contrast] < spread["one", contrast]


def test_equal_norms_are_no_equal_budgets_and_have_no_such_error(steering_world):
    folder, _ = steering_world.run(steering, budget_payload(strengthUnit="absolute"))
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["budget"] is None
    assert all(math.isnan(value) for value in table(folder / "neutral_text.parquet")["budget"])
    (contrast,) = [c for c in verdict["contrasts"] if c["contrast"] == "multi-coarse"]
    assert contrast["shared_sd"] == 0


def test_a_budget_out_of_reach_leaves_its_cell_out_with_the_reason(steering_world):
    folder, _ = steering_world.run(steering, budget_payload(strengths=[0.01, 1e5]))
    verdict = json.loads((folder / "verdict.json").read_text())
    assert set(table(folder / "arms.parquet")["strength"]) == {0.0, 0.01}
    assert verdict["missing"]["multi at 100000"] == "no norm brings this nextTokenKl"
    assert verdict["estimate"] is not None


def test_a_budget_below_what_ablating_alone_brings_is_missing_and_says_so(steering_world):
    payload = budget_payload(method="clamp", strengths=[1e-5, 1.0])
    folder, _ = steering_world.run(steering, payload)
    arms = table(folder / "arms.parquet")
    reached = set(zip(arms["arm"], arms["strength"], strict=True))
    missing = json.loads((folder / "verdict.json").read_text())["missing"]
    for arm in ("coarse", "fine", "multi"):
        assert (arm, 1e-5) not in reached
        assert missing[f"{arm} at 1e-05"].startswith("ablating its latents alone brings")
        assert "so no norm brings 1e-05" in missing[f"{arm} at 1e-05"]
    assert ("random-0", 1e-5) in reached
    passes = {call[1] for call in steering_world.calls if call[0] == "MatchingBudgets"}
    assert max(passes) < 30


def test_a_clamped_arm_reaches_the_budget_with_its_latents_cleared(steering_world):
    payload = budget_payload(method="clamp", strengths=[1.0])
    folder, _ = steering_world.run(steering, payload)
    arms = table(folder / "arms.parquet")
    run = prepare(payload, steering_world.context("check"))
    norms = dict(zip(arms["arm"], arms["norm"], strict=True))
    assert {"coarse", "fine", "multi"} <= norms.keys()
    for arm in ("coarse", "fine", "multi"):
        cells = run.intervention([Cell(arm, 1.0, norms[arm])])
        assert mean_over_texts(run, next_token_kl, cells) == [pytest.approx(1.0, rel=0.0201)]


def test_a_resumed_budget_has_the_bytes_of_an_undisturbed_one(steering_world):
    whole = contents(steering_world.run(steering, budget_payload())[0])
    for stop_at in (2, 5, 7):
        assert interrupted_and_resumed(steering_world, steering, budget_payload(), stop_at) == whole


def test_controls_are_built_from_what_is_not_the_anchor(steering_world):
    payload = budget_payload(arms=["none", "coarse", "fine", "multi", *CONTROLS])
    run = prepare(payload, steering_world.context("a"))
    assert set(run.arms.vectors) == {"coarse", "fine", "multi", *CONTROLS}
    assert all(float(v.norm()) == pytest.approx(1) for v in run.arms.vectors.values())
    pair = run.arms.vectors["coarsePair"]
    assert pair[[0, 2]].tolist() == pytest.approx([math.sqrt(0.5)] * 2)
    assert run.arms.latents["multi"] == {"coarse": [0], "fine": [1]}


def test_controls_of_latents_are_alive_and_answer_to_nothing(steering_world):
    for seed in range(12):
        sampling = budget_payload()["sampling"] | {"seed": seed}
        payload = budget_payload(arms=["nonChildren", "randomLatent"], sampling=sampling)
        latents = prepare(payload, steering_world.context("a")).arms.latents
        (drawn,) = latents["nonChildren"]["fine"]
        assert drawn not in (0, 1, 2, CONCEPT_LATENT), "silent, a child, or of the concept"
        (other,) = latents["randomLatent"]["coarse"]
        assert other not in (0, 2, CONCEPT_LATENT), "an anchor, or of the concept"


def test_the_mean_difference_is_that_of_the_captured_rows(steering_world):
    from safetensors.torch import load_file

    run = prepare(budget_payload(arms=["meanDifference"]), steering_world.context("a"))
    rows = load_file(steering_world.folder / "capture" / "residual.safetensors")["residual"]
    expected = rows[:4].double().mean(dim=0) - rows[4:].double().mean(dim=0)
    cosine = float(expected @ run.arms.vectors["meanDifference"].double() / expected.norm())
    assert cosine == pytest.approx(1.0, abs=1e-6)


def test_controls_are_contrasted_and_one_that_cannot_be_built_says_why(steering_world):
    described = json.loads((steering_world.folder / "mapping" / "directions.json").read_text())
    described["anchors"] = [0]
    (steering_world.folder / "mapping" / "directions.json").write_text(json.dumps(described))
    payload = budget_payload(arms=["coarse", "fine", "multi", *CONTROLS])
    folder, _ = steering_world.run(steering, payload)
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["missing"] == {"coarsePair": "there is only one anchor"}
    assert {c["contrast"] for c in verdict["contrasts"]} == {
        "multi-coarse", "multi-fine", "multi-nonChildren", "multi-randomLatent",
        "multi-meanDifference",
    }  # fmt: skip
    assert "coarse~meanDifference" in verdict["arm_cosines"]


def test_a_system_prompt_is_one_more_arm_on_the_same_scale(steering_world):
    payload = budget_payload(
        systemPrompt="people liked wine", systemPromptSeparator="", arms=["none", "coarse"]
    )
    folder, _ = steering_world.run(steering, payload)
    arms = table(folder / "arms.parquet")
    row = arms["arm"].index("systemPrompt")
    assert arms["strength"][row] == arms["norm"][row] == 0
    assert arms["kl"][row] > 0
    samples = table(folder / "steering_samples.parquet")
    by_arm = {
        arm: [t for a, t in zip(samples["arm"], samples["tokens"], strict=True) if a == arm]
        for arm in ("none", "systemPrompt")
    }
    assert by_arm["none"] != by_arm["systemPrompt"]


@pytest.mark.parametrize("separator", ["", " old "])
def test_the_separator_stands_between_system_prompt_and_opening(steering_world, separator):
    payload = budget_payload(
        systemPrompt="people liked wine", systemPromptSeparator=separator, arms=["none"]
    )
    run = prepare(payload, steering_world.context("a"))
    expected = run.model.encode(f"people liked wine{separator}")[1:]
    bos, *tokens = run.openings[0]
    assert run.prompted.keys() == {"systemPrompt"}
    assert run.prompted["systemPrompt"].openings[0] == [bos, *expected, *tokens]


def test_a_system_prompt_works_by_standing_before_the_text(steering_world):
    model = steering_world.model
    payload = budget_payload(
        systemPrompt="people liked wine", systemPromptSeparator="", arms=["none"], sampling={
            "temperature": 1.0, "topK": 0, "topP": 1.0, "greedy": True, "seed": 0,
        },
    )  # fmt: skip
    folder, _ = steering_world.run(steering, payload)
    samples = table(folder / "steering_samples.parquet")
    at = samples["arm"].index("systemPrompt")
    opening = payload["openings"][0]["text"]
    tokens = model.encode("people liked wine") + model.encode(opening)[1:]
    with torch.no_grad():
        expected = model.hf_model.generate(
            torch.tensor([tokens]), do_sample=False, max_new_tokens=5, min_new_tokens=5,
            eos_token_id=[], pad_token_id=model.pad_token,
        )[0, len(tokens) :]  # fmt: skip
    found = samples["tokens"][at]
    assert_drawn_alike(
        [found],
        [expected.tolist()[: len(found)]],
        lambda _, drawn: next_logits(
            model, tokens + drawn, HookPlace(1, "resid_post"), lambda h: h
        ),
        [],
        SamplingRule(greedy=True),
    )


def test_matched_latents_fire_alike_and_are_never_the_excluded_ones():
    firing = np.array([0, 50, 50, 49, 1, 2, 3, 100] + [200] * 30)
    drawn = matched_latents(firing, wanted=[1], excluded=[1, 2], seed=0)
    assert len(drawn) == 1
    assert drawn[0] not in (1, 2)
    assert matched_latents(firing[:4], [1], [1, 2], seed=0) == [3]
    assert matched_latents(firing[:3], [1], [1, 2], seed=0) == [], "latent 0 never fires"


PROMPTED = {"systemPrompt": "people liked wine", "systemPromptSeparator": " ,"}


def beside_the_prompt(folder):
    record = json.loads((folder / "verdict.json").read_text())["system_prompt"]
    return record, {arm["arm"]: arm for arm in record["arms"]}


def test_a_placebo_has_as_many_tokens_as_the_system_prompt_and_its_separator(steering_world):
    for placebo in ("sea", "the quiet teacher bought a large red house near the river in spain"):
        payload = budget_payload(**PROMPTED, placeboPrompt=placebo)
        run = prepare(payload, steering_world.context("a"))
        prompt, other = (
            run.prompted[arm].openings[0][1 : 1 - len(run.openings[0])]
            for arm in ("systemPrompt", "placeboPrompt")
        )
        assert len(other) == len(prompt)
        assert other[-1] == prompt[-1], "what stands between it and the opening is the same"
        text = run.model.encode(placebo)[1:]
        assert other[:-1] == (text * 3)[: len(other) - 1]


def test_the_placebo_is_an_arm_of_its_own_and_the_prompt_is_compared_with_it(steering_world):
    payload = budget_payload(**PROMPTED, placeboPrompt="the old house near the hill")
    folder, _ = steering_world.run(steering, payload)
    arms = table(folder / "arms.parquet")
    kl = dict(zip(arms["arm"], arms["kl"], strict=True))
    record, _ = beside_the_prompt(folder)
    assert (record["kl"], record["placebo_kl"]) == (kl["systemPrompt"], kl["placeboPrompt"])
    assert record["placebo"]["contrast"] == "systemPrompt-placeboPrompt"
    shift = table(folder / "distribution_shift.parquet")
    assert "placeboPrompt" in shift["arm"]


def test_an_arm_is_read_off_at_the_prompts_own_kl_where_strengths_lie_around_it(steering_world):
    probe, _ = steering_world.run(steering, budget_payload(**PROMPTED), "probe", "probe")
    kl = beside_the_prompt(probe)[0]["kl"]
    payload = budget_payload(**PROMPTED, strengths=[kl / 2, kl * 2])
    folder, _ = steering_world.run(steering, payload)
    _, found = beside_the_prompt(folder)
    arms = table(folder / "arms.parquet")
    for arm in ("coarse", "fine", "multi"):
        rates = [r for a, r in zip(arms["arm"], arms["concept_rate"], strict=True) if a == arm]
        assert found[arm]["reason"] is None
        assert found[arm]["rate"] == pytest.approx(np.mean(rates), abs=0.02), "half way in log KL"
        assert found[arm]["contrast"]["contrast"] == f"{arm}-systemPrompt"


def test_an_arm_that_was_not_scored_around_the_prompts_kl_says_why_it_is_not_compared(
    steering_world,
):
    for strengths, why in (([0.01], "give two strengths around"), ([1e-4, 2e-4], "lies outside")):
        payload = budget_payload(**PROMPTED, strengths=strengths)
        name = f"strengths-{len(strengths)}"
        folder, _ = steering_world.run(steering, payload, name, name)
        for arm in beside_the_prompt(folder)[1].values():
            assert (arm["rate"], arm["contrast"]) == (None, None)
            assert why in arm["reason"]


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_resumed_run_with_prompts_and_many_texts_has_the_bytes_of_an_undisturbed_one(
    steering_world, share
):
    payload = budget_payload(
        **PROMPTED, placeboPrompt="a garden", neutralText=MANY_TEXTS, strengths=[0.01]
    )
    steering_world.calls = []
    whole = contents(steering_world.run(steering, payload)[0])
    stop_at = round(share * len(steering_world.calls))
    assert interrupted_and_resumed(steering_world, steering, payload, stop_at) == whole
