"""Chains of dictionaries: pairs that share one are joined, and their arms stand by level."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from loopscope.reports.page.html import render_sweep
from loopscope.reports.page.sections.chain import chain_section
from loopscope.specs.keys import Key
from loopscope.views.chain import CHILDREN, ONE_LATENT, chains
from loopscope.views.experiment import ExperimentView
from loopscope.views.several import row_of
from loopscope.views.sweeps import Axis, AxisValue, GridCell, Sweep
from tests.unit.reports_case import build

SIZES = {"a": 128, "b": 256, "c": 512, "d": 1024}


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return ExperimentView.load(*build(tmp_path_factory.mktemp("state"), splitting=True))


def pair(view, name, *, capture="one", spec=None):
    """The experiment as one on the two dictionaries that its name says."""
    ends = {
        side: {"dictionary": {"identity": one, "d_sae": SIZES[one]}}
        for side, one in zip(("coarse", "fine"), name, strict=True)
    }
    stages = dict(view.stages)
    stages["splitting"] = with_inputs(stages["splitting"], ends)
    captured = {"capture": {"contentDigest": capture}}
    stages["coarse"] = with_inputs(stages["coarse"], captured)
    if spec is not None:
        steering = stages["steering"]
        record = replace(steering.record, spec=steering.spec | spec)
        stages["steering"] = replace(steering, record=record)
    key = Key("Experiment", "default", f"pair-{name}")
    record = replace(view.experiment, key=key)
    return replace(view, experiment=record, stages=MappingProxyType(stages))


def with_inputs(stage, inputs):
    status = replace(stage.record.status, inputs=inputs)
    return replace(stage, record=replace(stage.record, status=status))


def test_pairs_are_joined_where_they_share_a_dictionary_in_any_order(view):
    (chain,) = chains([pair(view, name) for name in ("bc", "cd", "ab")])
    assert [level.identity for level in chain.levels] == ["a", "b", "c", "d"]
    assert [one.name for one in chain.pairs] == ["pair-ab", "pair-bc", "pair-cd"]
    assert chain.missing == []


def test_one_pair_is_no_chain_nor_are_pairs_on_other_prompts_or_in_a_circle(view):
    assert chains([pair(view, "ab")]) == []
    assert chains([pair(view, "ab"), pair(view, "bc", capture="other")]) == []
    assert chains([pair(view, "ab"), pair(view, "ba")]) == []
    assert chains([view]) == []


def test_a_fork_is_followed_along_the_pair_that_is_named_first(view):
    (chain,) = chains([pair(view, name) for name in ("ab", "bd", "bc")])
    assert [one.name for one in chain.pairs] == ["pair-ab", "pair-bc"]


def test_each_level_stands_with_its_arms_and_the_difference_to_the_first(view):
    (chain,) = chains([pair(view, "ab"), pair(view, "bc")])
    first, *others = [one for one in chain.steered if one.strength == 0.25]
    assert [(one.level.identity, one.what) for one in (first, *others)] == [
        ("a", ONE_LATENT), ("b", CHILDREN), ("b", ONE_LATENT), ("c", CHILDREN),
    ]  # fmt: skip
    assert first.against is None
    again = others[1]
    assert (again.against, again.rate) == (0.0, first.rate), "the same texts in this made-up case"
    fine = view.stage("steering").table_named("arms.parquet").set_index(["arm", "strength"])
    expected = fine.loc[("fine", 0.25), "concept_rate"] - first.rate
    assert others[0].against == pytest.approx(expected)
    assert others[0].low <= others[0].against <= others[0].high


def test_levels_that_were_steered_by_other_rules_are_not_compared(view):
    (chain,) = chains([pair(view, "ab"), pair(view, "bc", spec={"maxNewTokens": 99})])
    known = {(one.experiment, one.what): one.against for one in chain.steered}
    assert known["pair-bc", ONE_LATENT] is None
    assert known["pair-ab", CHILDREN] is not None


def test_a_latent_in_between_has_two_words_on_the_page(view):
    (chain,) = chains([pair(view, "ab"), pair(view, "bc")])
    section = chain_section(chain)
    assert section.words == "128 latents → 256 latents → 512 latents"
    assert [row[:3] for row in section.fates] == [
        ["128 latents", "256 latents", "1 lost, 1 split"],
        ["256 latents", "512 latents", "1 lost, 1 split"],
    ]
    assert "2 part, lost" in section.figure and "4 born" in section.figure


def test_the_page_of_a_sweep_has_its_chain(view):
    (chain,) = chains([pair(view, "ab"), pair(view, "bc")])
    row = row_of(view.experiment)
    cell = GridCell("pair-ab", ("ab",), "Ready", "", None, row)
    sweep = Sweep("resolution", (Axis("pair", (AxisValue("ab", ()),)),), (cell,), None)
    page = render_sweep(sweep, [chain])
    assert "Resolution: 128 latents → 256 latents → 512 latents" in page
    assert page.count('<th scope="row">256 latents</th>') == 1 + 2 * 3, "one of fates, two at three"
    assert "Resolution:" not in render_sweep(sweep)
