from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from loopscope.numerics.statistics.paired import Contrast, paired_contrast
from loopscope.numerics.statistics.power import (
    POWER,
    Design,
    _smallest,
    cheapest_design,
    simulated_power,
    split_variance,
)
from loopscope.numerics.verdict.decision import (
    Evidence,
    VerdictRules,
    _judge,
    _need,
    _rests_on_degenerate_texts,
    decide,
    judge,
)
from loopscope.numerics.verdict.words import LEVEL_ONE_SIDED
from loopscope.worker.stages.steering.verdict_record import decision_record

COSINES = {"coarse~multi": 0.92, "fine~multi": 0.9, "coarse~fine": 0.6}
RULES = VerdictRules(min_difference=0.15, max_arm_cosine=0.98)


def noise(n, sd, seed=0):
    return np.random.Generator(np.random.Philox(key=seed)).normal(0, sd, n)


def column(scores):
    scores = np.asarray(scores, dtype=float)
    return scores[:, None] if scores.ndim == 1 else scores


def verdict(coarse, fine, multi, none=None, cosines=COSINES, rules=RULES, **evidence):
    """The record for scores per opening; unsteered text never mentions the concept."""
    scores = {"coarse": coarse, "fine": fine, "multi": multi}
    scores["none"] = np.zeros(len(coarse)) if none is None else none
    concept = {arm: column(values) for arm, values in scores.items() if values is not None}
    found = decision_record(Evidence(concept, cosines, **evidence), rules)
    json.dumps(found, allow_nan=False)
    return found


def flat(n, value):
    return np.full(n, value) + noise(n, 0.05, seed=7)


def test_multi_that_beats_both_is_supported():
    found = verdict(flat(60, 0.2), flat(60, 0.3), 0.6 + noise(60, 0.1))
    assert found["verdict"] == "Supported"
    assert found["contrast"] == "multi-fine"
    assert 0 < found["low"] < found["estimate"] < found["high"]
    assert found["n"] == 60
    assert found["n_needed"] is None


def test_multi_that_loses_to_one_is_refuted():
    found = verdict(flat(60, 0.2), flat(60, 0.8), 0.5 + noise(60, 0.1))
    assert (found["verdict"], found["contrast"]) == ("Refuted", "multi-fine")
    assert found["high"] < 0


def test_multi_that_equals_both_makes_no_practical_difference():
    base = flat(200, 0.5)
    found = verdict(base, base + noise(200, 0.1, 2), base + noise(200, 0.1, 3))
    assert found["verdict"] == "NoPracticalDifference"


@pytest.mark.parametrize("value", [0.0, 0.05])
def test_no_verdict_where_no_arm_moved_the_score(value):
    scores = np.repeat([1.0, 0.0], [round(100 * value), 100 - round(100 * value)])
    found = verdict(scores, scores, scores, none=scores)
    assert found["verdict"] == "NotTestable"
    assert "no single arm surely moved the score" in found["reason"]
    assert "larger strength" in found["reason"]


def test_an_arm_that_moved_the_score_on_few_openings_is_not_said_to_have_done_nothing():
    moved, still = np.array([1.0, 1.0, 0.0, 0.0]), np.zeros(4)
    found = verdict(still, moved, moved, none=still)
    assert found["verdict"] == "NotTestable"
    effect = found["assay"]["effect"]
    assert effect["estimate"] == 0.5 and effect["low"] <= 0
    assert "no single arm surely moved the score: fine-none +0.500 [" in found["reason"]
    assert "] reaches 0; use more openings or samples" in found["reason"]


class Touching(Evidence):
    """Every interval begins at 0 exactly, as on a lattice it may."""

    def contrast(self, first, second, margin=None):
        return replace(super().contrast(first, second, margin), low=0.0)


def test_a_contrast_asked_for_again_has_the_p_of_the_margin_that_is_asked_for_now():
    concept = {"multi": column(0.6 + noise(60, 0.2)), "fine": column(flat(60, 0.5))}
    evidence = Evidence(concept, COSINES)
    for margin in (0.05, 0.12, None, 0.05):
        alone = Evidence(concept, COSINES).contrast("multi", "fine", margin)
        assert evidence.contrast("multi", "fine", margin) == alone
    ps = {evidence.contrast("multi", "fine", one).p_below_margin for one in (0.05, 0.12, None)}
    assert len(ps) == 3


def test_an_effect_whose_interval_begins_at_zero_is_not_above_it():
    arms = {arm: column(flat(60, rate)) for arm, rate in (("coarse", 0.2), ("fine", 0.3))}
    concept = {**arms, "multi": column(flat(60, 0.6)), "none": column(np.zeros(60))}
    for kind, doubted in ((Evidence, False), (Touching, True)):
        assay = judge(kind(concept, COSINES), RULES).assay
        assert ("reaches 0" in assay.doubt) is doubted


def test_no_verdict_where_there_is_no_headroom():
    full = np.ones(126)
    found = verdict(full, np.repeat([1.0, 0.0], [63, 63]), full)
    assert found["verdict"] == "NotTestable"
    assert (
        "no headroom: coarse alone reaches 1.00, above 1 - minDifference (0.85)"
        in (found["reason"])
    )


def test_no_verdict_without_unsteered_text():
    scores = {"coarse": flat(60, 0.2), "fine": flat(60, 0.3), "multi": 0.6 + noise(60, 0.1)}
    concept = {arm: column(values) for arm, values in scores.items()}
    found = decision_record(Evidence(concept, COSINES), RULES)
    assert found["verdict"] == "NotTestable"
    assert "none" in found["reason"]
    assert found["assay"] is None


def test_the_assay_stands_beside_the_verdict():
    assay = verdict(flat(60, 0.2), flat(60, 0.3), 0.6 + noise(60, 0.1))["assay"]
    assert (assay["arm"], assay["doubt"]) == ("fine", None)
    assert assay["rate"] == pytest.approx(0.3, abs=0.02)
    assert assay["effect"]["contrast"] == "fine-none"
    assert assay["effect"]["low"] > 0


def with_mean_and_sd(n, mean, sd, seed):
    drawn = noise(n, 1.0, seed)
    return mean + sd * (drawn - drawn.mean()) / drawn.std(ddof=1)


def test_a_large_gain_over_the_worse_resolution_does_not_hide_that_the_better_one_is_as_good():
    """The France study of 126 openings: far above coarse, level with fine."""
    multi = 0.6 + noise(126, 0.3)
    coarse = multi - with_mean_and_sd(126, 0.448, 0.42, 1)
    fine = multi - with_mean_and_sd(126, 0.004, 0.30, 2)
    found = verdict(coarse, fine, multi)
    coarse_contrast = found["contrasts"][0]
    assert coarse_contrast["low_90"] > 0.15
    assert found["verdict"] == "NoPracticalDifference"
    assert found["n_needed"] is None
    assert "not better than the better single resolution by 0.15 or more" in found["reason"]
    assert "multi-fine stays below that" in found["reason"]


def test_a_gain_over_the_better_resolution_that_may_be_practical_is_not_called_none():
    multi = 0.6 + noise(60, 0.3)
    coarse = multi - with_mean_and_sd(60, 0.4, 0.4, 1)
    fine = multi - with_mean_and_sd(60, 0.08, 0.4, 2)
    found = verdict(coarse, fine, multi)
    assert found["contrasts"][1]["high"] > 0.15
    assert found["verdict"] == "Inconclusive"


def test_a_loss_that_may_be_practical_is_not_called_none():
    multi = 0.6 + noise(40, 0.3)
    coarse = multi - with_mean_and_sd(40, 0.0, 0.3, 1)
    fine = multi - with_mean_and_sd(40, -0.09, 0.35, 2)
    found = verdict(coarse, fine, multi)
    assert found["contrasts"][1]["low_90"] < -0.15
    assert found["contrasts"][1]["high"] > 0
    assert found["verdict"] == "Inconclusive"


def test_a_gain_that_is_sure_and_small_is_supported_and_called_small():
    multi = 0.6 + noise(400, 0.3)
    coarse = multi - with_mean_and_sd(400, 0.3, 0.3, 1)
    fine = multi - with_mean_and_sd(400, 0.06, 0.3, 2)
    found = verdict(coarse, fine, multi)
    assert found["verdict"] == "Supported"
    assert "by less than 0.15" in found["reason"]
    large = verdict(coarse, multi - with_mean_and_sd(400, 0.25, 0.3, 2), multi)
    assert "by less than" not in large["reason"]


def simulated_contrasts(name, effect, generator, experiments=4000, n=60, sd=0.35):
    """Contrasts of many experiments with t intervals, which the bootstrap's tails imitate."""
    differences = generator.normal(effect, sd, (experiments, n))
    mean, spread = differences.mean(axis=1), differences.std(axis=1, ddof=1)
    error = spread / math.sqrt(n)
    wide, narrow = (scipy.stats.t.ppf(level, n - 1) * error for level in (0.975, 0.95))
    ends = (mean - wide, mean + wide, mean - narrow, mean + narrow)
    above, below, above_margin, below_margin = (
        scipy.stats.t.cdf(distance / error, n - 1)
        for distance in (-mean, mean, -0.15 - mean, mean - 0.15)
    )
    p = (above, below, above, below, above_margin, below_margin)
    return [
        Contrast(name, row[0], *row[1:5], n, n, row[5], 0.0, *row[6:])
        for row in zip(mean, *ends, spread, *p, strict=True)
    ]


@pytest.mark.parametrize(
    ("coarse", "fine"), [(0.15, 0.15), (0.15, 2.0), (2.0, 0.15), (-0.15, 0.0), (-0.15, 2.0)]
)
def test_a_difference_at_the_edge_is_called_none_in_at_most_five_percent(coarse, fine):
    """At ±minDifference from the better resolution; tolerance three standard errors of the rate.

    Independent contrasts are the worst case at (0.15, 0.15): with 90 % bounds it would be 10 %.
    """
    generator = np.random.Generator(np.random.Philox(key=5))
    pairs = list(
        zip(
            simulated_contrasts("multi-coarse", coarse, generator),
            simulated_contrasts("multi-fine", fine, generator),
            strict=True,
        )
    )
    said = [_judge(pair, min(pair, key=lambda c: c.estimate), 0.15)[0] for pair in pairs]
    rate = said.count("NoPracticalDifference") / len(said)
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(said))
    assert rate >= 0.01, "a rule that never says it would pass as well"


def test_a_gain_is_small_for_sure_only_if_its_interval_ends_below_the_smallest_difference():
    gain = paired_contrast("multi-fine", 0.05 + noise(60, 0.02), np.zeros(60), margin=0.15)
    for limit, small in ((gain.high + 1e-9, True), (gain.high, False)):
        word, reason = _judge((gain, gain), gain, limit)
        assert word == "Supported" and ("by less than" in reason) is small


def test_few_noisy_openings_are_inconclusive_and_say_what_is_needed():
    found = verdict(flat(20, 0.4), flat(20, 0.4), 0.45 + noise(20, 0.5))
    assert found["verdict"] == "Inconclusive"
    binding = next(c for c in found["contrasts"] if c["contrast"] == found["contrast"])
    by_formula = math.ceil(((1.96 + 0.8416) * binding["sd"] / 0.15) ** 2)
    assert by_formula < found["n_needed"] < 3 * by_formula
    assert found["samples_needed"] == 1
    assert f"{found['n_needed']} openings with 1 sample each" in found["reason"]
    assert found["share_within_openings"] is None


def samples_of(openings, samples, between, within, seed):
    generator = np.random.default_rng(seed)
    means = generator.normal(0, between, (2, openings, 1))
    return means + generator.normal(0, within, (2, openings, samples))


def test_the_variance_is_split_between_and_within_openings():
    split = split_variance(samples_of(2000, 4, 0.2, 0.5, 1))
    assert np.diag(split.within) == pytest.approx([0.25, 0.25], rel=0.1)
    assert np.diag(split.between) == pytest.approx([0.04, 0.04], rel=0.25)
    assert split.share_within == pytest.approx(0.25 / 0.29, rel=0.05)
    assert split_variance(samples_of(50, 1, 0.2, 0.5, 1)).share_within is None


def test_noise_within_openings_asks_for_samples_and_noise_between_for_openings():
    within = cheapest_design(samples_of(200, 2, 0.0, 0.6, 1), 0.15)
    between = cheapest_design(samples_of(200, 2, 0.6, 0.05, 1), 0.15)
    assert within.samples > 2
    assert between.samples == 1
    assert within.openings < 0.6 * between.openings
    assert within.power >= 0.8


def test_a_design_reaches_its_power_although_the_pilot_was_small():
    """Over pilots of 20 openings the true power of what they ask for is 0.8 on average."""
    covariance = 0.36 * np.array([[1.0, 0.5], [0.5, 1.0]])
    factor = np.linalg.cholesky(covariance)
    generator = np.random.default_rng(3)
    reached = []
    for _ in range(12):
        pilot = (factor @ generator.standard_normal((2, 20)))[:, :, None]
        design = cheapest_design(pilot, 0.15)
        reached.append(simulated_power(covariance, 10**6, design.openings, 0.15))
    assert np.mean(reached) > 0.76


@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_a_difference_that_no_spec_could_show_names_no_number(spread):
    multi = 0.5 + noise(20, spread)
    found = verdict(flat(20, 0.5), flat(20, 0.5), multi, rules=VerdictRules(1e-9, 0.98))
    assert found["n_needed"] is None
    assert "no number of openings up to 100,000 would detect 1e-09" in found["reason"]


@pytest.mark.parametrize("pair", ["coarse~multi", "fine~multi"])
def test_arms_that_are_the_same_vector_are_not_testable(pair):
    arms = flat(60, 0.2), flat(60, 0.3), 0.6 + noise(60, 0.1)
    found = verdict(*arms, cosines=COSINES | {pair: 0.989})
    assert found["verdict"] == "NotTestable"
    assert "0.989" in found["reason"]
    assert found["estimate"] is not None


def test_a_missing_arm_is_not_testable_and_the_reason_is_kept():
    found = verdict(flat(20, 0.2), None, None, missing={"fine": "the anchor has no children"})
    assert found["verdict"] == "NotTestable"
    assert "no children" in found["reason"]
    assert found["estimate"] is None
    assert found["n"] == 20


def test_openings_that_all_agree_do_not_pretend_to_certainty():
    same = np.full(10, 0.5)
    found = verdict(same, same, same)
    assert (found["low"], found["high"]) == pytest.approx((-0.308, 0.308), abs=1e-3)
    assert found["verdict"] == "Inconclusive"
    assert found["n_needed"] == 23
    assert verdict(*[np.full(40, 0.5)] * 3)["verdict"] == "NoPracticalDifference"


def test_one_opening_decides_nothing():
    found = verdict(np.zeros(1), np.zeros(1), np.ones(1))
    assert found["verdict"] == "NotTestable"
    assert next(iter(found["contrasts"]))["sd"] is None


def test_random_directions_are_contrasted_but_do_not_decide():
    scores = {"coarse": flat(60, 0.2), "fine": flat(60, 0.3), "multi": 0.6 + noise(60, 0.1)}
    scores |= {"random": flat(60, 0.9), "none": np.zeros(60)}
    concept = {arm: column(values) for arm, values in scores.items()}
    shared = {"multi-random": 0.2}
    found = decision_record(Evidence(concept, COSINES, shared_sd=shared), RULES)
    assert found["verdict"] == "Supported"
    assert [c["contrast"] for c in found["contrasts"]] == [
        "multi-coarse", "multi-fine", "multi-random", "coarse-none", "fine-none",
    ]  # fmt: skip
    random = found["contrasts"][2]
    assert random["high"] - random["low"] > 2 * 1.9 * 0.2


def test_three_openings_can_never_support_whatever_they_show():
    found = verdict(np.full(3, 0.2), np.full(3, 0.3), np.array([0.9, 1.0, 0.8]))
    assert found["p_intersection_union"] == pytest.approx(1 / 8)
    assert found["verdict"] != "Supported"


def test_worse_than_one_of_two_is_held_to_half_the_level():
    base = np.full(60, 0.5)
    found = verdict(base, base, base - np.repeat([0.5, 0.0], [6, 54]))
    contrast = found["contrasts"][0]
    assert 0.0125 < contrast["p_less"] <= 0.025
    assert found["verdict"] != "Refuted"


def test_the_error_of_the_budgets_is_held_to_half_the_level_too():
    """An error that all openings share is in the interval and in the sign-flip p."""
    base = np.full(60, 0.5)
    arms = base, base, base - np.tile([0.2, 0.1], 30)
    found = verdict(*arms, shared_sd={"multi-coarse": 0.066, "multi-fine": 0.066})
    contrast = found["contrasts"][0]
    assert contrast["high"] < 0 and 0.0125 < contrast["p_below_zero"] <= 0.025
    assert contrast["p_less"] > 0.005
    assert found["verdict"] != "Refuted"
    assert found["p"]["refuted"] == pytest.approx(2 * contrast["p_below_zero"])
    assert verdict(*arms)["verdict"] == "Refuted"


def test_equal_arms_with_errors_of_their_budgets_are_refuted_in_at_most_a_fortieth():
    """Both single arms as good as multi: either could be thought better. Three standard errors."""
    generator = np.random.default_rng(8)
    shared, worlds, refuted = 0.05, 800, 0
    for _ in range(worlds):
        rates = 0.5 + shared / math.sqrt(2) * generator.standard_normal(3)
        arms = (generator.random((120, 3)) < rates).astype(float).T
        sd = {"multi-coarse": shared, "multi-fine": shared}
        found = judge(
            Evidence(
                {
                    **dict(
                        zip(("coarse", "fine", "multi"), (a[:, None] for a in arms), strict=True)
                    ),
                    "none": np.zeros((120, 1)),
                },
                COSINES,
                shared_sd=sd,
            ),
            RULES,
        )
        refuted += found.verdict == "Refuted"
    assert refuted / worlds <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / worlds)


def test_a_word_is_said_where_its_p_says_so():
    found = verdict(flat(60, 0.2), flat(60, 0.3), 0.6 + noise(60, 0.1))
    assert found["p"]["supported"] <= 0.025 < found["p"]["refuted"]
    untested = verdict(flat(60, 0.2), flat(60, 0.3), None)
    assert untested["p"] is None


def test_support_that_rests_on_degenerate_texts_is_no_support():
    arms = {"coarse": flat(60, 0.2), "fine": flat(60, 0.3), "multi": 0.6 + noise(60, 0.1)}
    intact = arms | {"multi": flat(60, 0.3), "none": np.zeros(60)}
    found = verdict(*arms.values(), intact=intact)
    assert found["verdict"] == "Inconclusive"
    assert "only when degenerate texts count" in found["reason"]
    assert "multi-fine" in found["reason"]
    assert verdict(*arms.values(), intact=arms)["verdict"] == "Supported"


def test_support_without_any_intact_text_is_no_support():
    arms = {arm: flat(30, value) for arm, value in (("coarse", 0.2), ("fine", 0.2), ("multi", 0.8))}
    none_of_multi = {**arms, "multi": np.full(30, math.nan)}
    found = verdict(**arms, intact=none_of_multi)
    assert found["verdict"] == "Inconclusive"
    assert "no opening for which two arms both wrote an intact text" in found["reason"]


def test_where_every_text_is_intact_the_contrasts_of_these_are_those_of_all():
    for arms in (
        {"coarse": flat(30, 0.2), "fine": flat(30, 0.3), "multi": flat(30, 0.6)},
        {arm: np.full(30, rate) for arm, rate in (("coarse", 0.2), ("fine", 0.3), ("multi", 0.6))},
    ):
        found = verdict(**arms, intact=arms)
        assert len(found["intact"]) == 2
        for intact in found["intact"]:
            (of_all,) = [one for one in found["contrasts"] if one["contrast"] == intact["contrast"]]
            for number in ("estimate", "low", "high"):
                assert intact[number] == pytest.approx(of_all[number], abs=1e-9)


def test_openings_without_an_intact_text_are_left_out_of_that_contrast():
    arms = {"coarse": flat(60, 0.2), "fine": flat(60, 0.3), "multi": 0.6 + noise(60, 0.1)}
    holes = {arm: scores.copy() for arm, scores in arms.items()}
    holes["multi"][:10] = np.nan
    found = verdict(*arms.values(), intact=holes)
    assert found["verdict"] == "Supported"
    assert {contrast["n"] for contrast in found["intact"]} == {50}


def test_openings_that_belong_together_are_one_witness():
    arms = np.tile([0.2, 0.2], 10), np.tile([0.3, 0.2], 10), np.tile([0.7, 0.9], 10)
    alone = verdict(*arms)
    together = verdict(*arms, group=np.zeros(20, dtype=int))
    assert alone["verdict"] == "Supported"
    assert together["verdict"] != "Supported"
    assert together["contrasts"][0]["groups"] == 1


def test_secondary_outcomes_are_corrected_together_and_never_decide():
    arms = {"coarse": flat(60, 0.2), "fine": flat(60, 0.3), "multi": 0.6 + noise(60, 0.1)}
    secondary = {
        "fluency": {"coarse": noise(60, 1), "fine": noise(60, 1, 1), "multi": noise(60, 1, 2)},
        "lift": {"coarse": np.zeros(60), "fine": np.zeros(60), "multi": 3 + noise(60, 0.1)},
    }
    secondary["fluency"]["coarse"][:10] = np.nan
    found = verdict(*arms.values(), secondary=secondary)
    lines = {(line["outcome"], line["contrast"]): line for line in found["secondary"]}
    assert len(lines) == 4
    assert lines["fluency", "multi-coarse"]["n"] == 50
    lift = lines["lift", "multi-fine"]
    assert lift["low"] > 1, "nats are not cut at 1"
    assert lift["p_two_sided"] < lift["p_holm"] <= 4 * lift["p_two_sided"] + 1e-12
    assert found["verdict"] == "Supported"


def test_a_record_holds_what_was_asked_and_found_each_under_its_name():
    arms = flat(60, 0.2), flat(60, 0.3), 0.6 + noise(60, 0.1)
    unsorted = {"fine~multi": 0.9, "coarse~multi": 0.92}
    found = verdict(*arms, cosines=unsorted, missing={"random": "not asked for", "probe": "none"})
    assert list(found) == [
        "verdict", "reason", "contrast", "estimate", "low", "high", "p", "p_intersection_union",
        "n", "n_needed", "samples_needed", "share_within_openings", "detectable_difference",
        "min_difference", "max_arm_cosine", "arm_cosines", "assay", "contrasts", "intact",
        "secondary", "missing",
    ]  # fmt: skip
    assert found["reason"].startswith("multi beats coarse and fine: multi-coarse +0.")
    assert (found["min_difference"], found["max_arm_cosine"]) == (0.15, 0.98)
    assert list(found["arm_cosines"].items()) == [("coarse~multi", 0.92), ("fine~multi", 0.9)]
    assert list(found["missing"]) == ["probe", "random"]
    assert (found["samples_needed"], found["intact"], found["secondary"]) == (None, [], [])
    assert 0 < found["detectable_difference"] < found["high"]
    binding = next(line for line in found["contrasts"] if line["contrast"] == "multi-fine")
    shown = ("estimate", "low", "high")
    assert [found[name] for name in shown] == [binding[name] for name in shown]
    assert found["p_intersection_union"] == max(
        line["p_greater"] for line in found["contrasts"] if line["contrast"].startswith("multi")
    )


def test_two_arms_alone_are_contrasted_though_nothing_is_said_of_them():
    concept = {"coarse": column(flat(20, 0.2)), "multi": column(flat(20, 0.6))}
    found = judge(Evidence(concept, COSINES), RULES)
    assert [contrast.contrast for contrast in found.primary] == ["multi-coarse"]
    assert (found.verdict, found.binding) == ("NotTestable", None)


def test_the_share_within_openings_needs_two_of_them():
    drawn = np.random.default_rng(0).random((3, 2, 4))
    one = verdict(*drawn[:, :1], none=np.zeros((1, 4)))
    assert one["share_within_openings"] is None
    two = verdict(*drawn, none=np.zeros((2, 4)))
    assert 0 < two["share_within_openings"] <= 1


def test_nothing_measured_is_nothing_known():
    found = decision_record(Evidence({}, {}), RULES)
    assert (found["verdict"], found["n"], found["contrasts"]) == ("NotTestable", 0, [])
    assert "coarse: not among the arms" in found["reason"]
    assert found["contrast"] is found["p"] is found["p_intersection_union"] is found["low"] is None


def test_a_cosine_that_is_not_known_is_no_evidence_that_the_arms_differ():
    found = verdict(*[flat(60, value) for value in (0.2, 0.3, 0.6)], cosines={"coarse~multi": 0.9})
    assert (found["verdict"], found["reason"]) == (
        "NotTestable",
        "the cosine fine~multi is not known",
    )


def test_arms_may_be_as_alike_as_the_rules_allow():
    arms = flat(60, 0.2), flat(60, 0.3), 0.6 + noise(60, 0.1)
    assert verdict(*arms, cosines=COSINES | {"fine~multi": 0.98})["verdict"] == "Supported"


def test_a_rate_at_the_edge_of_the_headroom_leaves_enough():
    half = np.repeat([1.0, 0.0], [60, 60])
    rules = VerdictRules(min_difference=0.5, max_arm_cosine=0.98)
    found = verdict(half, np.zeros(120), half, rules=rules)
    assert found["assay"]["rate"] == 0.5
    assert found["assay"]["doubt"] is None
    assert verdict(half, np.zeros(120), half, rules=VerdictRules(0.51, 0.98))["assay"]["doubt"]


@pytest.mark.parametrize(("openings", "samples"), [(60, 1), (60, 3), (61, 1)])
def test_a_run_that_offers_what_is_needed_already_says_so(openings, samples):
    multi = flat(60, 0.5)
    binding = judge(
        Evidence({arm: column(multi) for arm in ("coarse", "fine", "multi")}, COSINES), RULES
    ).binding
    assert binding.n == 60
    needed = _need(binding, Design(openings, samples, 0.8), 0.15)
    assert f"{openings} openings with {samples} sample{'s' if samples > 1 else ''} each" in needed
    assert ("which this run offers already" in needed) is (openings <= 60)


@pytest.mark.parametrize(("samples", "strengths"), [(1, 1), (2, 1), (1, 2), (4, 2)])
def test_one_hit_weighs_the_less_the_more_texts_an_opening_has(samples, strengths):
    drawn = np.random.default_rng(3).integers(0, 2, (2, 12, samples)).astype(float)
    arms = {"coarse": drawn[0], "fine": drawn[0], "multi": drawn[1]}
    asked = {} if strengths == 1 else {"strengths": strengths}
    found = judge(Evidence(arms, COSINES, **asked), RULES).primary[0]
    means = drawn[1].mean(axis=1), drawn[0].mean(axis=1)
    expected = [
        paired_contrast("multi-coarse", *means, unit=unit, margin=0.15)
        for unit in (1 / (samples * strengths), 2 / (samples * strengths))
    ]
    assert found == expected[0]
    assert expected[0] != expected[1], "what a hit weighs shows"


def test_the_smallest_number_of_openings_has_the_power_and_one_less_has_not():
    variances = split_variance(samples_of(60, 2, 0.4, 0.4, 3))
    for samples in (1, 4):
        design = _smallest(variances, samples, 0.15)
        covariance = variances.between + variances.within / samples
        fewer = simulated_power(covariance, 60, design.openings - 1, 0.15)
        assert design.power >= POWER > fewer
        assert design.power == simulated_power(covariance, 60, design.openings, 0.15)


def test_a_contrast_without_a_margin_says_nothing_about_one():
    contrast = paired_contrast("x", noise(20, 0.1), np.zeros(20))
    assert (contrast.p_above_margin, contrast.p_below_margin) == (1.0, 1.0)


def test_the_contrasts_stand_in_one_order_with_those_of_other_arms_by_name():
    arms = ("none", "multi", "sibling", "random", "anchor", "coarse", "fine", "parent")
    scores = {arm: column(0.3 + noise(20, 0.1, n)) for n, arm in enumerate(arms)}
    decision = decide(Evidence(scores, COSINES), RULES)
    assert [contrast.contrast for contrast in decision.contrasts] == [
        "multi-coarse", "multi-fine",
        "multi-anchor", "multi-parent", "multi-random", "multi-sibling",
        "coarse-none", "fine-none",
    ]  # fmt: skip


def test_of_one_opening_no_share_of_the_variance_is_known():
    one = np.array([0.9, 0.8])[None]
    scores = {"coarse": one * 0, "fine": one * 0, "multi": one, "none": one * 0}
    decision = decide(Evidence(scores, COSINES), RULES)
    assert decision.share_within_openings is None and decision.design is None


def test_the_single_arms_and_unsteered_text_alone_show_what_the_run_could_have_shown():
    scores = {"coarse": column(flat(20, 0.2)), "fine": column(flat(20, 0.5))}
    scores["none"] = column(np.zeros(20))
    judgement = judge(Evidence(scores, COSINES), RULES)
    assert judgement.assay is not None and judgement.assay.arm == "fine"
    assert judgement.reason == (
        "the contrast needs coarse, fine and multi (multi: not among the arms)"
    )
    del scores["none"]
    assert judge(Evidence(scores, COSINES), RULES).assay is None


def test_two_arms_alone_have_their_contrast():
    scores = {"coarse": column(flat(20, 0.2)), "multi": column(flat(20, 0.5))}
    decision = decide(Evidence(scores, COSINES), RULES)
    assert [contrast.contrast for contrast in decision.contrasts] == ["multi-coarse"]


def test_each_verdict_has_its_own_reason():
    words = {
        "Supported": "multi beats coarse and fine: ",
        "Refuted": "multi is worse than a single resolution: ",
        "NoPracticalDifference": "multi is not better than the better single resolution by 0.15",
        "Inconclusive": "the data allow more than one answer: ",
    }
    base = flat(200, 0.5)
    cases = {
        "Supported": (flat(60, 0.2), flat(60, 0.3), 0.6 + noise(60, 0.1)),
        "Refuted": (flat(60, 0.2), flat(60, 0.8), 0.5 + noise(60, 0.1)),
        "NoPracticalDifference": (base, base + noise(200, 0.1, 2), base + noise(200, 0.1, 3)),
        "Inconclusive": (flat(30, 0.5), flat(30, 0.5), 0.55 + noise(30, 0.5)),
    }
    for word, arms in cases.items():
        found = verdict(*arms)
        assert found["verdict"] == word
        assert found["reason"].startswith(words[word])


def test_further_outcomes_are_listed_by_their_names():
    arms = ("coarse", "fine", "multi", "none")
    scores = {arm: column(0.3 + noise(20, 0.1, n)) for n, arm in enumerate(arms)}
    evidence = Evidence(scores, COSINES, secondary={"b": scores, "c": scores, "a": scores})
    decision = decide(evidence, RULES)
    assert [(one.outcome, one.contrast.contrast) for one in decision.secondary] == [
        (outcome, f"multi-{arm}") for outcome in "abc" for arm in ("coarse", "fine")
    ]


def test_a_gain_among_intact_texts_is_lost_only_above_its_level():
    contrast = paired_contrast("multi-fine", 0.5 + noise(20, 0.1), np.full(20, 0.2))
    evidence = Evidence({}, COSINES, intact={})
    for p, lost in ((LEVEL_ONE_SIDED, False), (LEVEL_ONE_SIDED * 1.01, True)):
        one = replace(contrast, p_above_zero=p, p_greater=min(p, contrast.p_greater))
        assert one.p_gain == p
        assert (_rests_on_degenerate_texts(evidence, [one, one]) != "") is lost
