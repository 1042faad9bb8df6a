"""Arms under other sampling rules and openings: what is compared, and that it is had again."""

from dataclasses import replace

import numpy as np
import pandas
import pytest

from loopscope.numerics.statistics.paired import paired_contrast, rate_interval
from loopscope.numerics.verdict.robustness import arm_rates
from loopscope.reports.bundle import export_bundle
from loopscope.reports.page.html import render_report
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.reports.verification.robustness import OWN, RATES, check_robustness
from loopscope.specs.artifacts.robustness import ROBUSTNESS, ROBUSTNESS_TEXTS
from loopscope.views.experiment import ExperimentView
from loopscope.views.other_runs import OtherRun
from loopscope.views.robustness import RUN, robustness_of, robustness_rows, robustness_sentence
from tests.unit.reports_case import build

SCORES = {
    "none": np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]),
    "multi": np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]),
}


def test_an_arm_has_its_rate_its_effect_and_the_openings_that_fell_below_unsteered_text():
    none, multi = arm_rates(SCORES, 1, None)
    assert (none.arm, none.openings, none.rate) == ("none", 4, 0.5)
    assert np.isnan([none.effect, none.wrong_way, none.wrong_low]).all()
    assert (multi.rate, multi.effect, multi.wrong_way) == (0.75, 0.25, 0.25)
    assert (multi.low, multi.high) == rate_interval(SCORES["multi"])
    by_opening = {arm: scores.mean(axis=1) for arm, scores in SCORES.items()}
    contrast = paired_contrast("x", by_opening["multi"], by_opening["none"], unit=0.5)
    assert (multi.effect_low, multi.effect_high) == (contrast.low, contrast.high)
    fell = np.array([[0.0], [1.0], [0.0], [0.0]])
    assert (multi.wrong_low, multi.wrong_high) == rate_interval(fell)


def test_without_unsteered_text_there_is_a_rate_and_no_effect():
    (multi,) = arm_rates({"multi": SCORES["multi"]}, 1, None)
    assert multi.rate == 0.75
    assert np.isnan(multi.effect)


def test_openings_of_a_group_are_one_unit():
    alone = arm_rates(SCORES, 1, None)[1]
    together = arm_rates(SCORES, 1, np.array([0, 0, 1, 1]))[1]
    assert together.effect == alone.effect
    assert together.high - together.low > alone.high - alone.low
    assert together.wrong_high - together.wrong_low > alone.wrong_high - alone.wrong_low


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return ExperimentView.load(*build(tmp_path_factory.mktemp("robustness")))


@pytest.fixture(scope="module")
def beside(alone):
    """The view with a greedy run, whose scores are those of the shown one."""
    own = alone.stage("steering")
    greedy = {**own.spec["sampling"], "greedy": True}
    run = OtherRun("cold", "sampling", {"steering.sampling": greedy}, {"verdict": "Supported"})
    return replace(alone, others=(run,), others_steered={"cold": own})


def test_one_run_alone_has_no_panel(alone, tmp_path):
    assert robustness_of(alone).arms.empty
    bundle = export_bundle(alone, tmp_path / "bundle")
    assert not (bundle / ROBUSTNESS.name).exists()


def test_every_run_has_a_row_for_each_arm_with_what_names_it(beside):
    found = robustness_of(beside)
    assert [run[0] for run in found.runs] == ["declared", "sampling"]
    assert found.runs[1][1:] == ("greedy", "cold")
    own, other = (rows.drop(columns=RUN) for _, rows in found.arms.groupby("axis", sort=True))
    pandas.testing.assert_frame_equal(own.reset_index(drop=True), other.reset_index(drop=True))
    assert {"none", "coarse", "fine", "multi"} <= set(own["arm"])
    rows = robustness_rows(found)
    assert rows[0][1] == "as declared"
    assert any(row[1] == "greedy" and row[2] == "multi" for row in rows)
    assert " of 2 runs" in robustness_sentence(found)


def test_the_report_shows_each_arm_of_each_run(beside, alone):
    page = render_report(beside)
    part = page.partition('<section id="robustness"')[2].partition("</section>")[0]
    assert part.count("<circle") == 2 * len({"none", "coarse", "fine", "multi", "random"})
    assert "sampling: greedy" in part
    assert '<section id="robustness"' not in render_report(alone)


def checked(folder):
    findings = Findings()
    check_robustness(OpenBundle(folder), findings)
    return findings


def test_the_panel_of_a_bundle_follows_from_its_scores_and_a_changed_number_does_not(
    beside, tmp_path
):
    bundle = export_bundle(beside, tmp_path / "bundle")
    assert checked(bundle).differences == []
    assert set(checked(bundle).compared) == {RATES, OWN}

    path = bundle / ROBUSTNESS.name
    table = pandas.read_parquet(path)
    changed = table.copy()
    changed.loc[1, "effect"] += 0.01
    changed.to_parquet(path)
    assert [one.check for one in checked(bundle).differences] == [RATES]

    table.to_parquet(path)
    texts = pandas.read_parquet(bundle / ROBUSTNESS_TEXTS.name)
    texts.loc[0, "score"] = 1.0 - texts.loc[0, "score"]
    texts.to_parquet(bundle / ROBUSTNESS_TEXTS.name)
    assert OWN in {one.check for one in checked(bundle).differences}
