"""The gate: its decision rule line by line, and the draws that it is compared with."""

from dataclasses import replace

import numpy as np
import pytest

from loopscope.numerics.gate import rule
from loopscope.numerics.gate.calibration import (
    Counts,
    Halves,
    Question,
    choosable,
    select_candidates,
    selected_at,
    selection_power,
)
from loopscope.numerics.gate.matching import Comparison, Covariates
from loopscope.numerics.gate.rule import (
    READINGS,
    GateEvidence,
    GateRules,
    SelectionPower,
    SelectionThresholds,
    decide,
    outcome_of,
    readings,
    selective_latents,
    steered_first,
)
from loopscope.numerics.latents.features import latent_statistics, latents_tested
from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.statistics.multiple_tests import exceedance
from loopscope.reports.page.figures import mapping as mapping_figure
from loopscope.specs.rules import Gate, Selection
from tests.rows import discover_rows

RULES = GateRules(subfeatures_min=3, null_anchors=500, percentile_min=95.0, stability_min=0.8)
ABLE = SelectionPower(smallest_p=1e-9, tested=400, needed=1, top=5, prompts_needed=12)
STRONG = GateEvidence(
    candidates=2, power=ABLE, best_count=5, text_measured=True, null_draws=500, mean_rank=90.0,
    percentile=99.0, control_p=0.01, stability=0.95,
)  # fmt: skip
SELECTION = SelectionThresholds(0.8, 0.3, 0.2, 0.05)
QUESTION = Question(SELECTION, top=5, gate=RULES, resamples=60, seed=0)


def verdict(**changes) -> str:
    return decide(replace(STRONG, **changes), RULES)[0]


def test_the_rules_here_are_the_defaults_of_the_spec():
    gate = Gate()
    declared = (gate.min_subfeatures, gate.null_anchors, gate.min_percentile, gate.min_stability)
    assert GateRules(*declared) == RULES


def test_go_needs_everything_at_once():
    assert decide(STRONG, RULES) == ("GO", [])
    least = {"best_count": 3, "percentile": 95.0, "stability": 0.8, "null_draws": 100}
    assert verdict(**least, control_p=0.05) == "GO"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"percentile": 94.9}, "no more children than matched anchors: their mean rank of 90.0"),
        ({"percentile": float("nan"), "null_draws": 0}, "only 0 matched anchors exist"),
        ({"text_measured": False, "null_draws": 0}, "has no rates over calibration text"),
        ({"null_draws": 99}, "only 99 matched anchors exist, expected 100"),
        (
            {"control_p": 0.06},
            "a dictionary that knows nothing of the concept reaches as many (p 0.06)",
        ),
        ({"control_p": 0.055}, "a dictionary that knows nothing of the concept"),
        ({"stability": 0.79}, "only 79% of the resamples say the same, expected 80%"),
        ({"best_count": 2, "stability": 0.5}, "no candidate has 3 children, the most is 2"),
    ],
)
def test_each_doubt_alone_makes_it_inconclusive(changes, words):
    found, doubts = decide(replace(STRONG, **changes), RULES)
    assert found == "INCONCLUSIVE"
    assert any(words in doubt for doubt in doubts)


def test_no_go_is_a_stable_failure_of_the_count_and_needs_no_null():
    assert verdict(best_count=2) == "NO-GO"
    assert verdict(best_count=2, null_draws=0, percentile=float("nan"), control_p=1.0) == "NO-GO"
    found, doubts = decide(replace(STRONG, candidates=0, best_count=0), RULES)
    assert (found, doubts) == ("NO-GO", ["no candidates passed the selection"])


def test_the_outcome_of_a_resample():
    assert outcome_of(2, 99.0, RULES) == "fails"
    assert outcome_of(3, 94.0, RULES) == outcome_of(3, float("nan"), RULES) == "passes"
    assert outcome_of(3, 95.0, RULES) == "stands out"


def test_a_latent_on_every_threshold_of_the_selection_passes_and_beyond_any_it_fails():
    on = {"selectivity": 0.8, "firing_rate_target": 0.3, "firing_rate_neutral": 0.2}
    on["q_value"] = 0.05
    beyond = {"selectivity": 0.79, "firing_rate_target": 0.29, "firing_rate_neutral": 0.21}
    beyond["q_value"] = 0.051
    known = latent_statistics(with_a_perfect_latent(2, 0, latents=5))
    columns = {name: np.full(5, value) for name, value in on.items()}
    for place, (name, value) in enumerate(beyond.items(), start=1):
        columns[name][place] = value
    passed = selective_latents(replace(known, **columns), SELECTION)
    assert passed.tolist() == [True, False, False, False, False]


def test_steered_is_the_best_of_those_that_have_the_children():
    score = np.array([0.9, 0.5, 0.8, 0.7])
    assert steered_first(score, np.array([0, 3, 2, 5]), 3).tolist() == [3, 1, 0, 2]
    assert steered_first(score, np.array([0, 2, 2, 1]), 3).tolist() == [0, 2, 3, 1]
    assert steered_first(np.array([0.5, 0.5]), np.array([3, 4]), 3).tolist() == [0, 1]
    assert steered_first(score, np.array([0, 3, 2, 5]), 3, named=2).tolist() == [2, 3, 1, 0]


IS_TARGET = np.arange(100) % 2 == 0


def test_the_null_counts_ties_against_the_candidates():
    assert exceedance(np.array([3, 3, 3, 3]), 3) == 1.0
    assert exceedance(np.zeros(99, dtype=int), 1) == 0.01


def planted(seed: int = 0, latents: int = 30) -> np.ndarray:
    """Return activations [100, latents]; the first three answer to the target."""
    generator = np.random.default_rng(seed)
    fires = generator.random((100, latents)) < 0.3
    fires[:, :3] = IS_TARGET[:, None] & (generator.random((100, 3)) < [0.9, 0.6, 0.4])
    return fires * generator.uniform(0.5, 2, (100, latents))


def with_a_perfect_latent(prompts: int, seed: int, latents: int = 400, neutrals: int = 0):
    """Rows of ``prompts`` a side; latent 0 fires on every target prompt and on no neutral one."""
    generator = np.random.default_rng(seed)
    rows = prompts + (neutrals or prompts)
    fires = generator.random((rows, latents)) < generator.beta(2, 2, latents)
    activations = fires * generator.exponential(1, (rows, latents))
    activations[:prompts, 0] = 1 + generator.random(prompts)
    activations[prompts:, 0] = 0
    return discover_rows(activations, np.arange(rows) < prompts)


@pytest.mark.parametrize("prompts", [5, 6, 7])
def test_too_few_prompts_to_find_anything_are_no_evidence_against_it(prompts):
    for seed in range(4):
        rows = with_a_perfect_latent(prompts, seed)
        power = selection_power(rows, SELECTION.q_max, top=5)
        assert select_candidates(latent_statistics(rows), SELECTION, 5).size == 0
        assert power.is_missing
        evidence = replace(STRONG, candidates=0, best_count=0, power=power)
        answer, (why,) = decide(evidence, RULES)
        assert answer == "INCONCLUSIVE"
        assert f"use at least {power.prompts_needed} prompts of each condition" in why


def test_a_perfect_latent_that_fires_too_seldom_to_be_tested_could_not_have_been_found():
    rows = with_a_perfect_latent(4, 0, neutrals=100)
    assert np.isnan(latent_statistics(rows).p_value[0])
    assert selection_power(rows, SELECTION.q_max, top=5).is_missing


def test_no_more_latents_can_pass_together_than_are_tested():
    rows = with_a_perfect_latent(5, 0, latents=30)
    power = selection_power(rows, 0.001, top=1000)
    assert power.tested < power.needed <= 1000 and power.is_missing
    enough = with_a_perfect_latent(power.prompts_needed, 0, latents=30)
    assert not selection_power(enough, 0.001, top=1000).is_missing


def test_as_many_prompts_as_are_asked_for_do_find_a_perfect_latent():
    needed = selection_power(with_a_perfect_latent(6, 0), SELECTION.q_max, top=5).prompts_needed
    rows = with_a_perfect_latent(needed, 0)
    assert not selection_power(rows, SELECTION.q_max, top=5).is_missing
    alone = selection_power(rows, SELECTION.q_max, top=1).prompts_needed
    assert select_candidates(
        latent_statistics(with_a_perfect_latent(alone, 0)), SELECTION, 5
    ).tolist() == [0]


def test_no_candidate_where_some_could_have_been_found_is_an_answer():
    answer, why = decide(replace(STRONG, candidates=0, best_count=0), RULES)
    assert (answer, why) == ("NO-GO", ["no candidates passed the selection"])


def test_without_a_test_untested_latents_may_be_candidates():
    statistics = latent_statistics(with_a_perfect_latent(2, 0))
    assert np.isnan(statistics.p_value).all()
    assert not selective_latents(statistics, SELECTION).any()
    untested = replace(SELECTION, q_max=1.0)
    assert selective_latents(statistics, untested)[0]
    columns = {name: list(values) for name, values in statistics.columns().items()}
    table = {"latent": list(range(400)), **columns}
    declared = Selection(maxQ=1.0, top=1000).candidates(table)
    assert declared == select_candidates(statistics, untested, 1000).tolist()
    assert not selection_power(with_a_perfect_latent(2, 0), 1.0, top=1).is_missing


@pytest.mark.parametrize("top", [1, 2, 5])
def test_candidates_of_a_resample_come_by_the_rule_of_the_spec(top):
    statistics = latent_statistics(discover_rows(planted(), IS_TARGET))
    columns = {name: list(values) for name, values in statistics.columns().items()}
    expected = Selection(top=top).candidates({"latent": list(range(30)), **columns})
    assert select_candidates(statistics, SELECTION, top).tolist() == expected
    assert len(expected) == min(top, 3)


@pytest.mark.parametrize("q_max", [0.05, 0.5, 1.0])
def test_leaving_out_untested_latents_changes_no_candidate(q_max):
    generator = np.random.default_rng(1)
    fires = generator.random((60, 400)) < generator.choice([0.02, 0.1, 0.4], 400)
    fires[:30, :5] |= generator.random((30, 5)) < 0.9
    fires[:3, 5] = True  # on too few prompts for a test
    rows = discover_rows(fires * generator.exponential(1, fires.shape), np.arange(60) < 30)
    loose = SelectionThresholds(0.1, 0.05, 1.0, q_max)
    statistics = latent_statistics(rows)
    tested = np.flatnonzero(~np.isnan(statistics.p_value))
    assert 5 < len(tested) < 400 and latents_tested(rows).tolist() == tested.tolist()
    expected = select_candidates(statistics, loose, 50)
    assert len(expected) >= 3
    latents, some = choosable(rows, q_max)
    question = replace(QUESTION, selection=loose, top=50)
    found = selected_at(q_max, latent_statistics(some), some, question, latents)
    assert found.candidates.tolist() == expected.tolist()
    assert found.power == selected_at(q_max, statistics, rows, question).power


def counts_of(children: np.ndarray) -> Counts:
    """Return counts of latents that are alike in all that they are matched on."""
    alike = np.ones(len(children))
    return Counts(
        children, Comparison.of(children, Covariates(alike, alike, alike, alike.astype(bool)))
    )


def test_a_resample_keeps_the_conditions_and_is_the_same_for_the_same_number():
    rows = discover_rows(planted(), IS_TARGET)
    counts = counts_of(np.arange(30)[::-1].copy())
    halves = Halves(rows, counts, QUESTION)
    one, again = halves.answer(7), Halves(rows, counts, QUESTION).answer(7)
    assert [found.candidates.tolist() for found in one.selected] == [
        found.candidates.tolist() for found in again.selected
    ]
    assert replace(one, selected=()) == replace(again, selected=())
    assert one.best_count == 29
    assert one.outcome == "stands out"
    assert one.percentile == pytest.approx(100 * (1 - 1 / 28), abs=0.5)
    assert one.mean_rank > 90
    assert replace(halves.answer(7), selected=()) == replace(one, selected=())


@pytest.mark.parametrize("other_q", [(), (0.2,), (1.0,)])
def test_a_half_chooses_what_a_look_at_all_of_its_latents_chooses(other_q):
    """Whatever else is asked of it, and although latents that fire too seldom are left out."""
    generator = np.random.default_rng(3)
    fires = generator.random((80, 300)) < generator.choice([0.01, 0.03, 0.3], 300)
    fires[:40, :4] |= generator.random((40, 4)) < 0.8
    rows = discover_rows(fires * generator.exponential(1, fires.shape), np.arange(80) < 40)
    question = replace(QUESTION, other_q=other_q)
    halves = Halves(rows, counts_of(np.arange(300)), question)
    asked, chosen = (SELECTION.q_max, *other_q), []
    for number in range(12):
        half = rows.halved(keyed_generator("gate resample", question.seed, number))
        for q_max, found in zip(asked, halves.answer(number).selected, strict=True):
            whole = selected_at(q_max, latent_statistics(half), half, question)
            assert found.candidates.tolist() == whole.candidates.tolist()
            assert found.power == whole.power
            chosen.append(len(whole.candidates))
    assert max(chosen) >= 2


def noise(side: int, seed: int, latents: int = 100):
    """Latents that know nothing of the condition."""
    generator = np.random.default_rng(seed)
    fires = generator.random((2 * side, latents)) < generator.beta(2, 3, latents)
    is_target = np.arange(2 * side) < side
    return discover_rows(fires * generator.exponential(1, fires.shape), is_target)


def test_resampled_prompts_find_no_more_among_noise_than_prompts_do():
    """q holds in each resample: of 80 with nothing to find, few find something.

    Prompts drawn with replacement would: a prompt that counts twice is no second prompt.
    """
    found, repeated = [], []
    for seed in range(40):
        rows = noise(20, seed)
        generator = np.random.default_rng(seed)
        for number in range(2):
            half = rows.halved(keyed_generator("half", seed, number))
            found.append((latent_statistics(half).q_value <= 0.05).any())
            drawn = np.concatenate([generator.choice(20, 20), 20 + generator.choice(20, 20)])
            repeated.append((latent_statistics(rows.taken(drawn)).q_value <= 0.05).any())
    assert np.mean(found) <= 0.1
    assert np.mean(repeated) > 0.3


def test_halves_vary_about_the_whole_as_bootstrap_resamples_do():
    values = np.random.default_rng(0).exponential(1, (200, 1))
    rows = discover_rows(values, np.arange(200) < 100)
    halves = [rows.halved(keyed_generator("half", number)) for number in range(2_000)]
    assert all(half.prompts == 100 for half in halves[:20])
    means = [half.activations.toarray()[half.is_target].mean() for half in halves]
    bootstrap = values[:100].std() / np.sqrt(100)
    assert np.std(means) == pytest.approx(bootstrap, rel=0.1)


def test_a_half_that_could_not_have_found_anything_is_no_agreement():
    rows = with_a_perfect_latent(9, 0)  # nine a side can find it, five cannot
    assert not selection_power(rows, SELECTION.q_max, top=5).is_missing
    nothing = counts_of(np.zeros(400, dtype=int))
    halves = Halves(rows, nothing, QUESTION)
    assert {halves.answer(number).outcome for number in range(5)} == {"untestable"}


def test_a_latent_that_barely_passes_makes_the_gate_unstable():
    activations = planted()
    activations[:, 1:3] = 0  # only the first could answer, and it barely does
    activations[:, 0] = np.where(IS_TARGET & (np.arange(100) % 6 == 0), 1.0, 0.0)
    loose = replace(SELECTION, firing_rate_target_min=0.33, selectivity_min=0.9)
    rows = discover_rows(activations, IS_TARGET)
    counts = counts_of(np.eye(30, dtype=int)[0] * 9)
    asked = replace(QUESTION, selection=loose)
    halves = Halves(rows, counts, asked)
    outcomes = [halves.answer(number).outcome for number in range(60)]
    assert 0.2 < np.mean([outcome == "fails" for outcome in outcomes]) < 0.8


def test_each_pair_lies_in_one_of_the_readings_and_each_reading_has_its_pairs():
    cosine = np.array([0.5, 0.5, 0.3, 0.2, 0.1, 0.3, 0.29, 0.5])
    r = np.array([0.4, 0.39, 0.4, 0.4, 0.4, 0.1, 0.1, np.nan])
    found = readings(cosine, r, cosine_min=0.3, cosine_partial=0.2, correlation_min=0.4)
    assert found.tolist() == [
        "match", "geometric-only", "match", "partial", "co-occurring", "geometric-only",
        "unrelated", "unobserved",
    ]  # fmt: skip
    assert set(found.tolist()) == set(READINGS)


def test_the_page_knows_every_reading_of_a_pair_and_no_other():
    assert rule.READINGS == mapping_figure.READINGS
