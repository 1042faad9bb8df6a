from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.stats

from loopscope.numerics.paired import Contrast
from loopscope.numerics.verdict import _judge, decide

COSINES = {"coarse~multi": 0.92, "fine~multi": 0.9, "coarse~fine": 0.6}


def noise(n, sd, seed=0):
    return np.random.Generator(np.random.Philox(key=seed)).normal(0, sd, n)


def verdict(coarse, fine, multi, **changes):
    options = {
        "min_difference": 0.15, "max_arm_cosine": 0.98, "seed": 0, "missing": {},
    } | changes  # fmt: skip
    cosines = options.pop("cosines", COSINES)
    scores = {"coarse": coarse, "fine": fine, "multi": multi}
    found = decide({k: v for k, v in scores.items() if v is not None}, cosines, **options)
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


def with_mean_and_sd(n, mean, sd, seed):
    drawn = noise(n, 1.0, seed)
    return mean + sd * (drawn - drawn.mean()) / drawn.std(ddof=1)


def test_a_large_gain_over_the_worse_resolution_does_not_hide_that_the_better_one_is_as_good():
    """The France study of 126 openings: far above coarse, level with fine."""
    multi = noise(126, 0.3)
    coarse = multi - with_mean_and_sd(126, 0.448, 0.42, 1)
    fine = multi - with_mean_and_sd(126, 0.004, 0.36, 2)
    found = verdict(coarse, fine, multi)
    coarse_contrast, fine_contrast = found["contrasts"]
    assert coarse_contrast["low_90"] > 0.15
    assert (fine_contrast["low"], fine_contrast["high"]) == pytest.approx((-0.06, 0.067), abs=0.01)
    assert found["verdict"] == "NoPracticalDifference"
    assert found["n_needed"] is None
    assert "not better than the better single resolution by 0.15 or more" in found["reason"]
    assert "multi-fine stays below that" in found["reason"]


def test_a_gain_over_the_better_resolution_that_may_be_practical_is_not_called_none():
    multi = noise(60, 0.3)
    coarse = multi - with_mean_and_sd(60, 0.4, 0.4, 1)
    fine = multi - with_mean_and_sd(60, 0.08, 0.4, 2)
    found = verdict(coarse, fine, multi)
    assert found["contrasts"][1]["high"] > 0.15
    assert found["verdict"] == "Inconclusive"


def test_a_loss_that_may_be_practical_is_not_called_none():
    multi = noise(40, 0.3)
    coarse = multi - with_mean_and_sd(40, 0.0, 0.3, 1)
    fine = multi - with_mean_and_sd(40, -0.09, 0.35, 2)
    found = verdict(coarse, fine, multi)
    assert found["contrasts"][1]["low_90"] < -0.15
    assert found["contrasts"][1]["high"] > 0
    assert found["verdict"] == "Inconclusive"


def simulated_contrasts(name, effect, generator, experiments=4000, n=60, sd=0.35):
    """Contrasts of many experiments with t intervals, which the bootstrap's tails imitate."""
    differences = generator.normal(effect, sd, (experiments, n))
    mean, spread = differences.mean(axis=1), differences.std(axis=1, ddof=1)
    error = spread / math.sqrt(n)
    wide, narrow = (scipy.stats.t.ppf(level, n - 1) * error for level in (0.975, 0.95))
    p_less = scipy.stats.t.cdf(mean / error, n - 1)
    columns = zip(
        mean, mean - wide, mean + wide, mean - narrow, mean + narrow, spread, p_less, strict=True
    )
    return [Contrast(name, m, a, b, c, d, n, s, 1 - p, p) for m, a, b, c, d, s, p in columns]


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


def test_few_noisy_openings_are_inconclusive_and_say_how_many_are_needed():
    found = verdict(flat(20, 0.4), flat(20, 0.4), 0.45 + noise(20, 0.5))
    assert found["verdict"] == "Inconclusive"
    binding = next(c for c in found["contrasts"] if c["contrast"] == found["contrast"])
    expected = math.ceil(((1.96 + 0.8416) * binding["sd"] / 0.15) ** 2)
    assert found["n_needed"] == expected > 20
    assert str(expected) in found["reason"]


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
    assert (found["low"], found["high"]) == pytest.approx((-0.3, 0.3))
    assert found["verdict"] == "Inconclusive"
    assert found["n_needed"] == 20
    assert verdict(*[np.full(40, 0.5)] * 3)["verdict"] == "NoPracticalDifference"


def test_one_opening_decides_nothing():
    found = verdict(np.zeros(1), np.zeros(1), np.ones(1))
    assert found["verdict"] == "Inconclusive"
    assert next(iter(found["contrasts"]))["sd"] is None


def test_random_directions_are_contrasted_but_do_not_decide():
    scores = {"coarse": flat(60, 0.2), "fine": flat(60, 0.3), "multi": 0.6 + noise(60, 0.1)}
    scores["random"] = flat(60, 0.9)
    found = decide(scores, COSINES, min_difference=0.15, max_arm_cosine=0.98, seed=0, missing={})
    assert found["verdict"] == "Supported"
    assert [c["contrast"] for c in found["contrasts"]] == [
        "multi-coarse", "multi-fine", "multi-random",
    ]  # fmt: skip


def test_three_openings_can_never_support_whatever_they_show():
    found = verdict(np.zeros(3), np.zeros(3), np.array([0.9, 1.0, 0.8]))
    assert found["low"] > 0
    assert found["p_intersection_union"] == pytest.approx(1 / 8)
    assert found["verdict"] == "Inconclusive"


def test_worse_than_one_of_two_is_held_to_half_the_level():
    scores = np.zeros(60), np.zeros(60), -np.repeat([1.0, 0.0], [6, 54])
    found = verdict(scores[0], scores[1], scores[2])
    contrast = found["contrasts"][0]
    assert 0.0125 < contrast["p_less"] <= 0.025
    assert found["verdict"] != "Refuted"


def test_secondary_outcomes_are_corrected_together_and_never_decide():
    arms = {"coarse": flat(60, 0.2), "fine": flat(60, 0.3), "multi": 0.6 + noise(60, 0.1)}
    secondary = {
        "fluency": {"coarse": noise(60, 1), "fine": noise(60, 1, 1), "multi": noise(60, 1, 2)},
        "lift": {"coarse": np.zeros(60), "fine": np.zeros(60), "multi": 1 + noise(60, 0.1)},
    }
    secondary["fluency"]["coarse"][:10] = np.nan
    found = decide(
        arms, COSINES, min_difference=0.15, max_arm_cosine=0.98, seed=0, missing={},
        secondary=secondary,
    )  # fmt: skip
    json.dumps(found, allow_nan=False)
    lines = {(line["outcome"], line["contrast"]): line for line in found["secondary"]}
    assert len(lines) == 4
    assert lines["fluency", "multi-coarse"]["n"] == 50
    lift = lines["lift", "multi-fine"]
    assert lift["p_two_sided"] < lift["p_holm"] <= 4 * lift["p_two_sided"]
    assert found["verdict"] == "Supported"
