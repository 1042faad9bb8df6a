"""Stopping early: which openings a look sees, what it says, and where it is refused."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from loopscope.numerics.verdict.cells import ScoredCells
from loopscope.numerics.verdict.decision import VerdictRules, judge
from loopscope.numerics.verdict.evidence import evidence_of
from loopscope.numerics.verdict.looks import look, looks
from loopscope.numerics.verdict.sequential import NEEDED, interval_at_any_time, word_e
from loopscope.specs.kinds.experiment import ExperimentSpec
from loopscope.specs.kinds.study import StudySpec
from loopscope.specs.registration import FIXED
from loopscope.specs.rules import SteeringRules
from loopscope.specs.stopping import blocks_of, steered_openings, turns_of
from loopscope.views.registration import plan_of
from loopscope.views.stopping import look_rows, stopping_sentence
from tests.tiny_experiment import document

COSINES = {"coarse~multi": 0.5, "fine~multi": 0.5, "coarse~fine": 0.1}
RULES = VerdictRules(0.15, 0.98)
ARMS = ("none", "coarse", "fine", "multi")


def openings(n, groups=None):
    return [
        {"id": f"opening-{i:04d}", "text": f"text {i}", **({"group": groups[i]} if groups else {})}
        for i in range(n)
    ]


def in_turn(blocks):
    return [place for block in blocks for place in block]


def test_blocks_hold_every_opening_once_in_an_order_that_the_texts_and_the_seed_decide():
    blocks = blocks_of(openings(50), {"every": 20}, 0)
    assert [len(block) for block in blocks] == [20, 20, 10]
    assert sorted(in_turn(blocks)) == list(range(50))
    assert in_turn(blocks) != sorted(in_turn(blocks))
    assert blocks_of(openings(50), {"every": 20}, 1) != blocks
    turned = blocks_of(openings(50)[::-1], {"every": 20}, 0)
    assert [[49 - place for place in block] for block in turned] == blocks


def test_a_group_is_not_divided():
    groups = [i // 3 for i in range(30)]
    for block in blocks_of(openings(30, groups), {"every": 4}, 3):
        assert {groups[place] for place in block} == {
            group
            for group in set(groups)
            if all(groups.index(group) + k in block for k in (0, 1, 2))
        }


def test_what_was_steered_first_is_the_beginning_of_the_same_order():
    whole, rule = openings(47), {"every": 10}
    blocks = blocks_of(whole, rule, 5)
    kept = steered_openings(whole, rule, 5, 20)
    assert [one["id"] for one in kept] == [whole[p]["id"] for p in sorted(blocks[0] + blocks[1])]
    turns, of_kept = turns_of(whole, rule, 5), turns_of(kept, rule, 5)
    by_id = {one["id"]: turn for one, turn in zip(whole, turns, strict=True)}
    assert [by_id[one["id"]] for one in kept] == of_kept
    assert steered_openings(whole, rule, 5, 47) == whole
    assert blocks_of(whole, None, 5) != blocks
    assert len(blocks_of(whole, None, 5)) == 1


def run(rates, n=200, seed=0, samples=1, turn=True):
    rng = np.random.default_rng(seed)
    scores = np.stack([rng.random((n, samples)) < rate for rate in rates]).astype(float)
    outcomes = {"concept": scores, "intact": np.ones_like(scores)}
    order = rng.permutation(n) if turn else None
    cells = [(arm, 0.0 if arm == "none" else 1.0) for arm in ARMS]
    return ScoredCells(cells, outcomes, np.zeros((4, 1)), None, None, order)


def blocks(n, every=20):
    return [range(start, min(n, start + every)) for start in range(0, n, every)]


def test_a_look_sees_the_openings_of_its_turn_and_no_other():
    whole = run((0.0, 0.2, 0.4, 0.9))
    changed = whole.outcomes["concept"].copy()
    changed[:, whole.turn >= 60] = 0.5
    other = replace(whole, outcomes={**whole.outcomes, "concept": changed})
    assert look(whole, 60, COSINES, {}, RULES) == look(other, 60, COSINES, {}, RULES)
    assert look(whole, 80, COSINES, {}, RULES) != look(other, 80, COSINES, {}, RULES)


def test_a_look_has_the_e_values_that_the_simulation_plays():
    whole = run((0.0, 0.2, 0.4, 0.7), samples=2)
    order = np.argsort(whole.turn)[:100]
    _, coarse, fine, multi = whole.outcomes["concept"].mean(axis=2)[:, order]
    paths = word_e(multi - coarse, multi - fine, RULES.min_difference)
    bets = look(whole, 100, COSINES, {}, RULES).bets
    np.testing.assert_allclose(
        (bets.supported, bets.refuted, bets.no_difference), [path.max() for path in paths]
    )


@pytest.mark.parametrize(
    ("rates", "word"),
    [((0.0, 0.2, 0.4, 0.9), "Supported"), ((0.0, 0.2, 0.9, 0.4), "Refuted")],
)
def test_a_large_difference_is_seen_early_and_a_small_one_is_not(rates, word):
    said = [one.verdict for one in looks(run(rates), blocks(200), COSINES, {}, RULES)]
    assert word in said[:5]
    assert set(said) <= {word, "Inconclusive", "NotTestable"}
    small = [
        one.verdict for one in looks(run((0.0, 0.4, 0.5, 0.5)), blocks(100), COSINES, {}, RULES)
    ]
    assert not set(small) & {"Supported", "Refuted"}


def test_a_word_needs_its_e_value_where_somebody_looked_and_none_where_nobody_did():
    looked = run((0.0, 0.4, 0.45, 0.62), n=140, seed=1)
    evidence = evidence_of(looked, COSINES, {}, {})
    fixed, early = judge(replace(evidence, turn=None), RULES), judge(evidence, RULES)
    assert fixed.verdict == "Supported"
    assert fixed.bets is None
    assert early.bets.supported < NEEDED["Supported"]
    assert early.verdict == "Inconclusive"
    assert early.p.supported == 1 / early.bets.supported > fixed.p.supported


def test_a_bet_that_is_won_says_nothing_where_only_degenerate_texts_count():
    whole = run((0.0, 0.2, 0.3, 0.95), n=200)
    intact = whole.outcomes["intact"].copy()
    intact[3] = 1 - whole.outcomes["concept"][3]  # each hit of multi is a loop
    loops = replace(whole, outcomes={**whole.outcomes, "intact": intact})
    assert look(whole, 200, COSINES, {}, RULES).verdict == "Supported"
    found = look(loops, 200, COSINES, {}, RULES)
    assert found.bets.supported >= NEEDED["Supported"]
    assert found.verdict == "Inconclusive"


def test_the_interval_of_a_look_is_wider_than_one_of_a_fixed_number_and_holds_the_truth():
    evidence = evidence_of(run((0.0, 0.2, 0.4, 0.7)), COSINES, {}, {})
    early, fixed = judge(evidence, RULES), judge(replace(evidence, turn=None), RULES)
    for one, other in zip(early.primary, fixed.primary, strict=True):
        assert one.high - one.low > other.high - other.low
        assert one.low < one.estimate < one.high
        assert one.low < one.low_90 < one.high_90 < one.high
        assert one.estimate == other.estimate
    shared = replace(evidence, shared_sd={"multi-coarse": 0.05})
    assert judge(shared, RULES).primary[0].low == pytest.approx(early.primary[0].low - 0.098)


def test_an_interval_at_any_time_misses_the_truth_at_some_look_in_fewer_than_one_of_twenty():
    rng = np.random.default_rng(4)
    missed = 0
    for _ in range(200):
        differences = (rng.random(120) < 0.5).astype(float) - (rng.random(120) < 0.4)
        ends = [interval_at_any_time(differences[:n]) for n in (20, 40, 80, 120)]
        missed += any(not low <= 0.1 <= high for low, high in ends)
        assert ends == sorted(ends, key=lambda pair: pair[0] - pair[1])
    assert missed <= 10


def rules(**given):
    return {
        "prompts": {"texts": ["we saw"]}, "lexicon": {"texts": ["france"]},
        "neutralText": {"texts": ["a hill"]}, **given,
    }  # fmt: skip


def test_a_rule_has_its_default_and_its_bounds():
    assert SteeringRules.model_validate(rules(stopEarly={})).stop_early.every == 20
    assert SteeringRules.model_validate(rules()).stop_early is None
    with pytest.raises(ValidationError, match="every"):
        SteeringRules.model_validate(rules(stopEarly={"every": 0}))


def test_what_pools_effects_refuses_to_stop_early_and_says_why():
    given = document("tiny")["spec"]
    texts = {"prompts": {"target": {"texts": ["a"]}, "neutral": {"texts": ["b"]}}}
    steering = rules(stopEarly={})
    for changes in (
        {"steering": steering, "matrix": {"seed": {"a": {"steering.sampling.seed": 1}}}},
        {"steering": rules(), "matrix": {"rule": {"a": {"steering.stopEarly": {}}}}},
    ):
        with pytest.raises(ValidationError, match="a matrix pools the effects"):
            ExperimentSpec.model_validate({**given, **texts, **changes})
    study = {"experiment": {"steering": steering}, "concepts": {}}
    with pytest.raises(ValidationError, match="a study pools the effects"):
        StudySpec.model_validate(study)
    assert ExperimentSpec.model_validate({**given, **texts, "steering": steering})


def test_a_registration_has_the_rule_in_its_plan():
    fixed, early = (
        plan_of({**SteeringRules.model_validate(one).canonical(), "gatePolicy": "report"})
        for one in (rules(), rules(stopEarly={"every": 7}))
    )
    assert fixed["stopping"] == FIXED
    assert "each 7 openings" in early["stopping"]
    assert "Supported 40, Refuted 40, NoPracticalDifference 20" in early["stopping"]


def test_a_word_of_a_look_is_told_with_its_e_value_and_none_without_looks():
    e = {"supported": 41.2, "refuted": 0.5, "no_difference": 1.0}
    last = {"openings": 40, "verdict": "Supported", "e": e}
    first = {"openings": 20, "verdict": "NotTestable", "e": None}
    verdict = {"stopping": {"declared": 120, "looks": [first, last]}}
    assert stopping_sentence(verdict).startswith(
        "Stopped early, after 40 of 120 openings and 2 looks: the e-value of Supported had reached "
        "41.2, and 40 were needed"
    )
    assert [row[-1] for row in look_rows(verdict)] == ["NotTestable", "Supported"]
    spent = {"stopping": {"declared": 20, "looks": [{**first, "verdict": "Inconclusive"}]}}
    assert stopping_sentence(spent).startswith("No look said a word, after 20 of 20 openings")
    assert stopping_sentence({}) == ""
